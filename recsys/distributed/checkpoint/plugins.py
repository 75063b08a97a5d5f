"""What Lightning is given to save and load checkpoints by: one file, or a folder of shards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.apply_func import apply_to_collection
from lightning.fabric.utilities.types import _PATH
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from recsys.core.durable import replaced_file
from recsys.core.errors import RecsysError
from recsys.distributed.checkpoint.copies import Copies
from recsys.distributed.checkpoint.folder import reason
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.distributed.checkpoint.save import items_of, write_folder
from recsys.distributed.processes import from_all_ranks

#: Called on the first rank when a checkpoint is whole.
Then = Callable[[], None]


class CheckpointPlugin(CheckpointIO):
    """Writes one checkpoint after the other, on request while the training goes on.

    ``storage_options`` of a save is what to do on the first rank when it is whole.

    Args:
        in_background: copy the state and write it beside the training; ``finish`` waits.
    """

    def __init__(self, in_background: bool = False) -> None:
        self.in_background = in_background
        self._copies = Copies()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint, or begin to; the one before is finished first.

        Raises:
            RecsysError: it, or the one before, cannot be written.
        """
        self.finish()
        write = partial(self._written, self.prepare(checkpoint, Path(path)), path, storage_options)
        if not self.in_background:
            write()
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        self._pending = self._thread.submit(write)

    @abstractmethod
    def prepare(self, checkpoint: dict[str, Any], path: Path) -> Callable[[], None]:
        """What writes this checkpoint, also while the training goes on if ``in_background``."""

    def _written(self, write: Callable[[], None], path: _PATH, then: Then | None) -> None:
        with named_if_unwritten(path):
            write()
        if then is not None and (not dist.is_initialized() or dist.get_rank() == 0):
            then()

    def finish(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            RecsysError: it cannot be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def remove_checkpoint(self, path: _PATH) -> None:
        """Nothing: who names checkpoints removes them."""

    def teardown(self) -> None:
        """Finish; Lightning calls it at the end of a run, however it ends."""
        try:
            self.finish()
        finally:
            self._copies.close()
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None


class OneFileCheckpoints(CheckpointPlugin):
    """One file, written beside the target and renamed, so that it is whole or not there."""

    def prepare(self, checkpoint: dict[str, Any], path: Path) -> Callable[[], None]:
        """One process's file."""
        if self.in_background:
            tensors: list[Tensor] = []
            apply_to_collection(checkpoint, Tensor, tensors.append)
            copies = iter(self._copies.of(tensors))
            checkpoint = apply_to_collection(checkpoint, Tensor, lambda _: next(copies))
        return partial(write_file, checkpoint, path)

    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """All of a checkpoint of either form.

        Raises:
            ArtifactError: it is not there or damaged.
        """
        stored = open_checkpoint(Path(path))
        stored.check()
        return stored.whole()


class ShardedCheckpoints(CheckpointPlugin):
    """A folder, to which every rank writes what it holds; all ranks must save together.

    Args:
        in_background: copy the state and write it beside the training; ``finish`` waits.
        timeout: how long a rank waits for the others.
    """

    def __init__(self, in_background: bool = False, timeout: Any = None) -> None:
        super().__init__(in_background)
        self.timeout = timeout
        self._group: dist.ProcessGroup | None = None

    def prepare(self, checkpoint: dict[str, Any], path: Path) -> Callable[[], None]:
        """This rank's part; what is agreed on goes through a process group of its own.

        So a write in the background does not come between what the training communicates, and
        what lies on a GPU need not go through NCCL.
        """
        if self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=self.timeout)
        copies = self._copies if self.in_background else None
        items = items_of(checkpoint, dist.get_rank(), copies)
        return partial(write_folder, items, path, int(checkpoint["global_step"]), self._group)

    def load_checkpoint(
        self, path: _PATH, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """What this rank goes on with, of a checkpoint of either form; tables are left stored.

        Raises:
            ArtifactError: it is not there or damaged; on every rank.
        """
        stored = open_checkpoint(Path(path))
        rank, num_ranks = dist.get_rank(), dist.get_world_size()
        agreed(partial(stored.check, rank, num_ranks))
        return stored.content(rank, num_ranks)

    def teardown(self) -> None:
        """Finish, and leave the group."""
        super().teardown()
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None


def agreed(check: Callable[[], None]) -> None:
    """Do something on every rank.

    Raises:
        Exception: on every rank, what one has raised.
    """
    found: Exception | None = None
    try:
        check()
    except RecsysError as error:
        found = error
    for raised in from_all_ranks(found):
        if raised is not None:
            raise raised


@contextmanager
def named_if_unwritten(path: _PATH) -> Iterator[None]:
    """Name the checkpoint that a block writes where it cannot, as when the disk is full.

    Raises:
        RecsysError: it cannot be written.
    """
    try:
        yield
    except (OSError, CheckpointException, RuntimeError) as error:
        why = _reason(error)
        mend = (
            "make room or let the folder be written to"
            if isinstance(why, OSError)
            else "where another process has ended, it says why"
        )
        raise RecsysError(
            f"The checkpoint {path} could not be written: {' '.join(str(why).split())[:300]}; "
            f"{mend}, and do the same again (a run: with resume=true)."
        ) from error


def _reason(error: BaseException) -> BaseException:
    """Why a rank could not write."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return reason(error)


def write_file(checkpoint: dict[str, Any], target: Path) -> None:
    """Save ``checkpoint`` at ``target`` by one atomic rename; a write that fails leaves nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(target) as unfinished, unfinished.open("wb") as file:
        torch.save(checkpoint, file)
