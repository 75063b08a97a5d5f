"""A run that is told to stop saves its state first, so that it can go on as if it had not."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning

from recsys.core.errors import PreemptedError
from recsys.distributed.processes import STOP_SIGNAL
from recsys.runs.checkpoints import LAST, Checkpoints, is_last_step, is_validated, is_within_step


class Preemption(lightning.Callback):
    """On SIGUSR1 saves ``last.ckpt`` after the step that is being computed, and ends the run.

    The ranks agree on the step: one that was told stops them all. A step that is validated is
    saved after its validation, by ``Checkpoints``; a run that is at its last step finishes.

    Attributes:
        requested: whether this rank was told to stop.
        saved: whether the ranks have agreed to stop, and the step that was done last is saved.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.requested = False
        self.saved = False

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Listen from now on, and before Lightning does, which leaves a signal that is handled.

        Its own way under SLURM is another: a checkpoint of its own kind, saved at once.
        """
        signal.signal(STOP_SIGNAL, self._request)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the step, unless its validation does, or ``Checkpoints`` right after this."""
        if is_within_step(trainer, batch_idx):
            return
        if is_last_step(trainer) or is_validated(trainer, batch_idx):
            return
        if self._is_requested_anywhere(trainer):
            # twice would remove it first: none would be left if the time ran out in between
            if not self.checkpoints.is_due(trainer, batch_idx):
                self.checkpoints.save(trainer)
            self.saved = True

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Know the step as saved."""
        if trainer.state.fn == "fit" and not is_last_step(trainer):
            self.saved = self._is_requested_anywhere(trainer)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop, now that the numbers of the saved step are logged.

        Raises:
            PreemptedError: on the first rank, the run was told to stop, and can go on.
            SystemExit: on the others, with code 0: a rank that fails has the others ended, and the
                first may still have to hand its numbers to loggers.
        """
        if self.saved:
            self.checkpoints.finish(trainer)
            folder = self.checkpoints.folder
            if not trainer.is_global_zero:
                raise SystemExit(0)
            raise PreemptedError(
                f"Told to stop by {STOP_SIGNAL.name}: step {trainer.global_step} is saved in "
                f"{folder / LAST}; go on by `recsys train run_dir={folder.parent} "
                "resume=true`."
            )

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _is_requested_anywhere(self, trainer: lightning.Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)
