"""Checkpoints of a run, each named by its step; ``best.ckpt`` and ``last.ckpt`` are links.

A checkpoint is one file, or a folder of shards with ``strategy=torchrec``.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from recsys.core.errors import ConfigError, RecsysError
from recsys.distributed.checkpoint.plugins import CheckpointPlugin
from recsys.evaluation.monitor import Monitor
from recsys.runs.divergence import Divergence

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
LAST = "last.ckpt"
#: What a user may name instead of a path.
NAMED_CHECKPOINTS = {"best": BEST, "last": LAST}
_OF_STEP = "step-{:08d}.ckpt"
#: All of them; a file that is being written has a longer name.
STEPS = "step-*.ckpt"


@dataclass(frozen=True)
class Validated:
    """A step that was validated.

    Attributes:
        step: optimiser steps done.
        metrics: every ``val/…`` metric.
    """

    step: int
    metrics: dict[str, float]


class Checkpoints(Checkpoint):
    """Saves the best states by a monitored metric and, every few steps, the last one.

    Lightning's ModelCheckpoint saves a step that is also validated before its validation; a run
    killed in between would skip that validation when resumed, and could choose another
    checkpoint. Here such a step is saved after its validation. The last step is one of them: saved
    later, when Lightning has counted the epoch as done, a run could not go on within it.

    A step is written once, under its own name. When it is whole, ``last.ckpt`` is linked to it by
    an atomic rename; what that checkpoint says of the best ones is what then holds, also where the
    run was killed before the other link was set.

    Args:
        folder: of the checkpoints.
        every_n_steps: steps between two saves of the last state.
        monitor: what picks the best.
        keep_best: how many of the best are kept.
        patience: the training ends after so many validations in a row that were not the best one;
            None for no such end.
        then: what is done on the first rank when a checkpoint is whole and linked.

    Attributes:
        divergence: is asked before anything is saved, and ends the training instead.
        best: of the steps validated so far the best ones, best first.
        since_best: validations after the best one.
        batches_per_epoch: of a process; in a checkpoint those of the processes that have saved it.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int,
        monitor: Monitor,
        keep_best: int = 1,
        patience: int | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.divergence = Divergence(folder)
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.keep_best = keep_best
        self.patience = patience
        self.then = then
        self.best: list[Validated] = []
        self.since_best = 0
        self.batches_per_epoch: float | None = None
        self._saved_epoch: int | None = None

    def save(self, trainer: lightning.Trainer) -> None:
        """Save the last state; every rank must call it.

        Raises:
            TrainingError: it is not finite.
        """
        self.divergence.refuse(trainer)
        step = trainer.global_step
        best = [one.step for one in self.best]
        trainer.save_checkpoint(
            self.folder / _OF_STEP.format(step),
            weights_only=False,
            storage_options=partial(self._settle, step, best),
        )

    def _settle(self, step: int, best: list[int]) -> None:
        settle(self.folder, step, best)
        if self.then is not None:
            self.then()

    def finish(self, trainer: lightning.Trainer) -> None:
        """Wait until the last state is saved, where that is done in the background."""
        plugin = trainer.strategy.checkpoint_io
        assert isinstance(plugin, CheckpointPlugin)
        plugin.finish()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Go on at the loaders' place in the epoch, and clear up after a run that was killed."""
        self._count_batches_anew(trainer)
        self._begin_next_epoch(trainer)
        if trainer.is_global_zero:
            settle(self.folder, trainer.global_step, [one.step for one in self.best])
        self._stop_without_progress(trainer)

    def _stop_without_progress(self, trainer: lightning.Trainer) -> None:
        if self.patience is not None and self.since_best >= self.patience:
            trainer.should_stop = True

    def _count_batches_anew(self, trainer: lightning.Trainer) -> None:
        """Let Lightning's count of an epoch's batches be that of the loaders.

        With batches of another size, or another number of processes, an epoch has more of them or
        fewer; the loaders go on at the same share of it. Lightning would end the epoch too early.
        """
        saved, now = self.batches_per_epoch, trainer.num_training_batches
        if saved is not None and saved != now:
            current = trainer.fit_loop.epoch_loop.batch_progress.current
            moved = int(current.ready * now // saved) - current.ready
            counts = current.state_dict().items()  # of a batch's stages: ready, …, completed
            current.load_state_dict({stage: count + moved for stage, count in counts})
        self.batches_per_epoch = now

    def _begin_next_epoch(self, trainer: lightning.Trainer) -> None:
        """Let a run that was saved after the last batch of an epoch go on with the next, or end.

        Of a step that was saved in its validation Lightning believes that this is still to be
        done, and trains a batch to come to it; and it has forgotten the epoch where it was saved
        there twice.
        """
        loop = trainer.fit_loop
        if self._saved_epoch is None:
            return
        over = loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches
        for count in (loop.epoch_progress.total, loop.epoch_progress.current):
            begun, done = self._saved_epoch + 1, self._saved_epoch + int(over)
            count.load_state_dict(
                {"ready": begun, "started": begun, "processed": done, "completed": done}
            )
        if over:
            loop.reset_restart_stage()
            loop.epoch_loop.restarting = False

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Let numbers be logged under the step they belong to.

        Lightning's own count is one short where a run goes on after a validation that was none of
        the regular ones, as that of the last step.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save the last state, unless this step's validation does it; the last step has one."""
        if is_last_step(trainer):
            trainer.should_stop = True  # Lightning validates where a run is told to stop
        elif self.is_due(trainer, batch_idx):
            self.save(trainer)

    def is_due(self, trainer: lightning.Trainer, batch_idx: int) -> bool:
        """Whether the step of this batch is one of every few, and no validation saves it."""
        return (
            trainer.global_step % self.every_n_steps == 0
            and not is_within_step(trainer, batch_idx)
            and not is_validated(trainer, batch_idx)
        )

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save the state, as the last one and maybe as one of the best."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        measured = {
            k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        }
        fallback = self.monitor.fallback
        self.divergence.refuse_validation(trainer, fallback, measured.get(fallback, 0.0))
        best = self._with(Validated(trainer.global_step, measured))
        self.best = trainer.strategy.broadcast(best)  # the ranks must agree
        is_best = self.best[0].step == trainer.global_step
        self.since_best = 0 if is_best else self.since_best + 1
        self.save(trainer)
        self._stop_without_progress(trainer)

    def _with(self, validated: Validated) -> list[Validated]:
        """The best ones, this one among them where it belongs; of equal ones the earlier first."""
        return sorted([*self.best, validated], key=self._place)[: self.keep_best]

    def _place(self, one: Validated) -> tuple[int, float]:
        """Lower is better: by the monitored metric, or else by the loss, or else not at all.

        A metric is not defined without positives, or with labels that are all equal. A step where
        it is comes before all where it is not, whatever their losses.
        """
        metric, loss = (
            one.metrics.get(name, math.nan) for name in (self.monitor.metric, self.monitor.fallback)
        )
        if math.isfinite(metric):
            return 0, -metric if self.monitor.highest else metric
        return (1, loss) if math.isfinite(loss) else (2, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to choose the same checkpoints."""
        best = [asdict(one) for one in self.best]
        return {
            "best": best,
            "since_best": self.since_best,
            "batches_per_epoch": self.batches_per_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best of the run so far."""
        self.batches_per_epoch = state_dict["batches_per_epoch"]
        self.since_best = state_dict.get("since_best", 0)  # older checkpoints have none
        self.best = [Validated(one["step"], one["metrics"]) for one in state_dict["best"]]

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Know the epoch in which the checkpoint was saved.

        Raises:
            ConfigError: it is one beyond those that the run is to have.
        """
        done, most = checkpoint["epoch"], trainer.max_epochs
        if most is not None and done > most:
            raise ConfigError(
                f"The run has done {done} epochs, and trainer.max_epochs is {most}; give {done} or "
                "more to go on with it."
            )
        self._saved_epoch = done


def settle(folder: Path, last: int, best: list[int]) -> None:
    """Link ``last.ckpt`` and ``best.ckpt`` to these steps, and remove what nobody needs.

    Args:
        folder: of the checkpoints.
        last: the step that was saved last.
        best: the best steps, best first.

    Raises:
        RecsysError: the folder cannot be written to.
    """
    try:
        _settle(folder, last, best)
    except OSError as error:
        raise RecsysError(
            f"The checkpoints in {folder} cannot be linked or removed ({error}); let the folder be "
            "written to, and go on by resume=true."
        ) from error


def _settle(folder: Path, last: int, best: list[int]) -> None:
    for name, step in ((LAST, [last]), (BEST, best[:1])):
        for target in (_OF_STEP.format(one) for one in step):
            if (folder / target).exists():  # a copy may have only what the links led to
                _link(folder / name, target)
    kept = {_OF_STEP.format(step) for step in (last, *best)}
    for path in folder.glob(STEPS + "*"):
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _link(path: Path, target: str) -> None:
    """Let ``path`` be a link to ``target`` beside it, in one atomic step."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    if path.is_dir() and not path.is_symlink():  # of a run that was copied with its links followed
        shutil.rmtree(path)
    os.replace(temporary, path)


def is_within_step(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether further batches are accumulated into the step of this one."""
    full = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return not full and not trainer.is_last_batch


def is_validated(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether a regular validation follows the step of this batch."""
    interval = trainer.val_check_batch or math.inf
    over_epochs = trainer.check_val_every_n_epoch is None
    done = trainer.fit_loop.total_batch_idx if over_epochs else batch_idx
    return bool(trainer.enable_validation and (done + 1) % interval == 0)


def is_last_step(trainer: lightning.Trainer) -> bool:
    """Whether the training ends after this step."""
    last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)
