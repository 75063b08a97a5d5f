"""A trace of some steps of a training, in the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch.profiler import ProfilerActivity, profile

from recsys.core.console import message_console
from recsys.runs.files import PROFILE

#: Allocations that a memory snapshot remembers.
_MEMORY_EVENTS = 100_000
_ROWS = 40


class Profile(lightning.Callback):
    """Traces some batches, forward, backward, update and the wait for the next one.

    Every rank writes ``profile/after-<step>-rank-<n>.json.gz``, a table of operators beside it
    (``.txt``) and, on a GPU, who has allocated what (``.memory.pickle``).

    Args:
        run_dir: the run folder.
        after: batches of this process before those that are traced.
        steps: batches that are traced.
    """

    def __init__(self, run_dir: Path, after: int, steps: int) -> None:
        self.folder = run_dir / PROFILE
        self.after = after
        self.steps = steps
        self._seen = 0
        self._profile: profile | None = None
        self._name = ""

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin with the first of the batches."""
        if self._seen == self.after:
            on_gpu = trainer.strategy.root_device.type == "cuda"
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
            if on_gpu:
                torch.cuda.memory._record_memory_history(max_entries=_MEMORY_EVENTS)
            self._profile = profile(activities=activities, record_shapes=True)
            self._name = f"after-{trainer.global_step}-rank-{trainer.global_rank}"
            self._profile.start()
        self._seen += 1

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write after the last one."""
        if self._profile is not None and self._seen == self.after + self.steps:
            self._write(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write what there is of a training that has ended before, or say that there is nothing."""
        if self._profile is not None:
            self._write(trainer)
        elif self._seen <= self.after and trainer.is_global_zero:
            message_console().print(
                f"No trace: the training has ended after {self._seen} batches, of which "
                f"trainer.profile_after={self.after} were to come before."
            )

    def on_exception(self, *_: Any) -> None:
        """Leave nothing running."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None

    def _write(self, trainer: lightning.Trainer) -> None:
        assert self._profile is not None
        traced, self._profile = self._profile, None
        self.folder.mkdir(exist_ok=True)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        traced.stop()
        path = self.folder / f"{self._name}.json.gz"
        traced.export_chrome_trace(str(path))
        order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        table = self.folder / f"{self._name}.txt"
        table.write_text(traced.key_averages().table(sort_by=order, row_limit=_ROWS))
        memory = self.folder / f"{self._name}.memory.pickle"
        if on_gpu:
            torch.cuda.memory._dump_snapshot(str(memory))
            torch.cuda.memory._record_memory_history(enabled=None)
        if trainer.is_global_zero:
            message_console().print(
                f"Trace of {self._seen - self.after} batches: {path}; open it at ui.perfetto.dev "
                f"or chrome://tracing. The dearest operators: {table}."
                + (f" Memory: {memory}; open it at docs.pytorch.org/memory_viz." if on_gpu else "")
            )
