"""The ranks of a training watched by each other: which one hangs, which one is slow."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch.distributed as dist

from recsys.core.console import message_console
from recsys.distributed.heartbeats import Heartbeats, StepTimes
from recsys.runs.files import LOGS

#: Own time of each rank, a line for each of them and each window.
STEP_TIMES = "step_times.csv"
HEADER = ("step", "rank", "host", "own_seconds_per_step")
#: Seconds between two lines of a rank.
WINDOW = 30.0


class RankWatch(lightning.Callback):
    """Ends a training that hangs, with the name of the rank that does, and tells slow ranks.

    Args:
        run_dir: the run folder; ``logs/step_times.csv`` is written there.
        minutes: without a rank that comes further after which the training is ended.
        window: seconds between two lines of a rank in that file.
    """

    def __init__(self, run_dir: Path, minutes: float, window: float = WINDOW) -> None:
        self.path = run_dir / LOGS / STEP_TIMES
        self.minutes = minutes
        self.window = window
        self._beats: Heartbeats | None = None
        self._told = ""

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin to watch, where there is more than one rank."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            self._beats = Heartbeats(
                dist.get_rank(),
                dist.get_world_size(),
                dist.distributed_c10d._get_default_store(),
                self.path.parent,
                60 * self.minutes,
                self.window,
                self._write_times,
            )
            self._beats.start()

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """A step begins."""
        self._beat(f"step {trainer.global_step + 1}")

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """A step is done; what follows is the next batch, or a checkpoint."""
        if self._beats is not None:
            self._beats.step_done()
        self._beat(f"what follows step {trainer.global_step} (the next batch, a checkpoint)")

    def on_validation_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """A batch of a validation begins."""
        self._beat(f"the validation after step {trainer.global_step}", in_step=False)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """All its batches are done."""
        self._beat(f"the end of the validation after step {trainer.global_step}", in_step=False)

    def on_train_end(self, *_: Any) -> None:
        """What follows is not a training."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """The rank ends, and says why."""
        self._stop()

    def _beat(self, phase: str, in_step: bool = True) -> None:
        if self._beats is not None:
            self._beats.beat(phase, in_step)

    def _stop(self) -> None:
        if self._beats is not None:
            self._beats.stop()
            self._beats = None

    def _write_times(self, times: StepTimes, hosts: Sequence[str]) -> None:
        self.path.parent.mkdir(exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(HEADER)
            for rank, (host, seconds) in enumerate(zip(hosts, times.own, strict=True)):
                writer.writerow((times.step, rank, host, f"{seconds:.6f}"))
        remark = times.remark(hosts)
        if remark is not None and self._told != f"rank {times.slowest}":
            self._told = f"rank {times.slowest}"  # once, until another is slow
            message_console().print(f"{remark} {self.path} has all.")
