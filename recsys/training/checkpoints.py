"""Checkpoints of a run: ``best.ckpt`` by the choose split, ``last.ckpt`` to resume from."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint

from recsys.training.systems.base import Monitor

FOLDER = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a checkpoint is whole or not there."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` at ``path`` by one atomic rename."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)


class Checkpoints(Checkpoint):
    """Saves the best state by a monitored metric and, every few steps, the last one.

    Lightning's ModelCheckpoint saves a step that is also validated before its validation; a run
    killed in between would skip that validation when resumed, and could choose another
    checkpoint. Here such a step is saved after its validation. The last step is one of them: saved
    later, when Lightning has counted the epoch as done, a run could not go on within it.

    Attributes:
        best_value: best monitored value so far, None before the first validation.
        best_step: optimiser steps done when it was measured.
        best_metrics: every ``val/…`` metric of that validation.
    """

    def __init__(self, folder: Path, every_n_steps: int, monitor: Monitor) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.best_value: float | None = None
        self.best_step = 0
        self.best_metrics: dict[str, float] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let numbers be logged under the step they belong to.

        Lightning's own count is one short where a run goes on after a validation that was none of
        the regular ones, as that of the last step.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the last state, unless this step's validation does it; the last step has one."""
        if is_last_step(trainer):
            trainer.should_stop = True  # Lightning validates where a run is told to stop
        elif (
            trainer.global_step % self.every_n_steps == 0
            and not is_within_step(trainer, batch_idx)
            and not is_validated(trainer, batch_idx)
        ):
            trainer.save_checkpoint(self.folder / LAST, weights_only=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the best state if this is it, and the last one."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        measured = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        }
        value = measured.get(self.monitor.metric, math.nan)
        # Without positives, or with labels that are all equal, the metric is not defined.
        defined = not math.isnan(value)
        if not defined:
            value = measured[self.monitor.fallback]
        # the ranks must agree, for all of them save
        if trainer.strategy.broadcast(self._is_best(value, defined and self.monitor.highest)):
            self.best_value, self.best_step = value, trainer.global_step
            self.best_metrics = measured
            trainer.save_checkpoint(self.folder / BEST, weights_only=False)
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)

    def _is_best(self, value: float, highest: bool) -> bool:
        best = self.best_value
        if best is None or math.isnan(best):
            return True
        return value > best if highest else value < best

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to choose the same checkpoint."""
        return {
            "best_value": self.best_value,
            "best_step": self.best_step,
            "best_metrics": self.best_metrics,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best of the run so far."""
        self.best_value = state_dict["best_value"]
        self.best_step = state_dict["best_step"]
        self.best_metrics = state_dict["best_metrics"]


def is_within_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether further batches are accumulated into the step of this one."""
    full = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return not full and not trainer.is_last_batch


def is_validated(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether a regular validation follows the step of this batch."""
    interval = trainer.val_check_batch or math.inf
    over_epochs = trainer.check_val_every_n_epoch is None
    done = trainer.fit_loop.total_batch_idx if over_epochs else batch_idx
    return bool(trainer.enable_validation and (done + 1) % interval == 0)


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the training ends after this step."""
    last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)
