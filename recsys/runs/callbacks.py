"""Callbacks of every run: randomness by step, progress on standard error."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar

from recsys.distributed.randomness import seed_of_step
from recsys.runs.checkpoints import is_within_step


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


class ValidateEverySteps(lightning.Callback):
    """Validates after every so many steps of the whole run, and never within one.

    Lightning counts batches. Where they are accumulated, an epoch whose last step is made of fewer
    would shift its validations into the middle of a step, whose gradients no checkpoint holds.

    Args:
        steps: between two validations.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Give Lightning an interval that ends with this batch, or one that does not."""
        ends_step = not is_within_step(trainer, batch_idx)
        is_due = ends_step and (trainer.global_step + 1) % self.steps == 0
        batches = trainer.fit_loop.total_batch_idx + 1
        trainer.val_check_batch = batches if is_due else batches + 1


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
