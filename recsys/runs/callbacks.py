"""Callbacks of every run: randomness by step, progress on standard error."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar

from recsys.distributed.randomness import seed_of_step


class StepSeed(lightning.Callback):
    """The randomness of a step (dropout) depends on the seed and the step alone.

    So a resumed run draws what the run that was not killed drew, whatever else used the
    generator before. Every rank draws something else, and every batch of an accumulated step.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Seed the generators of the CPU and of every GPU."""
        batches = trainer.accumulate_grad_batches
        place = trainer.global_rank * batches + batch_idx % batches
        torch.manual_seed(seed_of_step(self.seed, trainer.global_step, place))


class ProgressBar(RichProgressBar):
    """Steps, loss and NE, on standard error."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5, leave=True, console_kwargs={"stderr": True})

    def get_metrics(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The metrics logged with ``prog_bar=True``, without Lightning's version number."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
