"""Computing a publication's embeddings on several processes of one machine.

Users are divided by a hash of their ids. The processes compute and write nothing: their rows come
back to the one that publishes, which writes them in the order of the keys and moves the pointer
last. So the store holds what one process would have written, and one that ends early leaves
nothing.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.core.errors import ArtifactError
from recsys.core.folders import read_whole
from recsys.core.process_context import process_context
from recsys.core.quiet import quieten
from recsys.data.stores.timelines import TimelineStore
from recsys.embeddings.changes import Moment
from recsys.embeddings.compute import TimelineEmbedder
from recsys.embeddings.stores.base import UserId, encode_user

#: Blocks of users that are computed while an earlier one is written.
_BLOCKS_AHEAD = 2


@dataclass(frozen=True)
class Block:
    """Users who are written together.

    Attributes:
        ids: raw, in the order of their keys.
        index: [U] their indices.
    """

    ids: list[UserId]
    index: NDArray[np.int32]


@dataclass(frozen=True)
class Computation:
    """What a process needs to compute rows.

    Attributes:
        artifact: the folder of the tower.
        identity: of the tower.
        timelines: the folder of the users' timelines.
        moment: as of when.
        batch_users: users per call of the tower.
    """

    artifact: Path
    identity: str
    timelines: Path
    moment: Moment
    batch_users: int

    def embedder(self) -> TimelineEmbedder:
        """The tower and timelines, opened by this process.

        Raises:
            ArtifactError: the artifact is another one now.
        """
        # whoever publishes has found it to be trusted
        artifact = read_whole(self.artifact, lambda: load_timeline_tower(self.artifact, trust=True))
        if artifact.identity != self.identity:
            raise ArtifactError(
                f"{self.artifact} was exported anew while it was published; publish again."
            )
        timelines = TimelineStore.open(self.timelines)
        return TimelineEmbedder(artifact, timelines, self.moment, self.batch_users)


def compute_blocks(
    blocks: Sequence[Block], embedder: TimelineEmbedder, computation: Computation, processes: int
) -> Iterator[tuple[Block, NDArray[np.int64]]]:
    """Rows [U, N_out, n] of each block, in order.

    Args:
        blocks: of users.
        embedder: of this process, which computes where it is the only one.
        computation: what the others need.
        processes: how many compute.

    Raises:
        ArtifactError: one of them has ended early.
    """
    if processes == 1:
        for block in blocks:
            yield block, embedder.many_rows(block.index)
        return
    waiting: deque[tuple[Block, list[NDArray[np.int64]]]] = deque()
    try:
        with ExitStack() as stack:
            workers = [stack.enter_context(_worker(computation)) for _ in range(processes)]
            for block in blocks:
                waiting.append((block, _submit(workers, block)))
                if len(waiting) > _BLOCKS_AHEAD:
                    yield _collected(workers, *waiting.popleft())
            while waiting:
                yield _collected(workers, *waiting.popleft())
    except _EndedEarlyError as error:
        raise ArtifactError(
            f"One of the {processes} processes that compute embeddings has ended early (it was "
            "killed, or memory is short); nothing was published. Publish again, if need be on "
            "fewer: each holds the whole tower."
        ) from error


def part_of(user: UserId, processes: int) -> int:
    """The process that computes a user."""
    return zlib.crc32(encode_user(user)) % processes


class _EndedEarlyError(Exception):
    """A process is not there any more."""


@dataclass(frozen=True)
class _Worker:
    """A process that computes, and the pipe to it.

    Each has a pipe of its own, and nothing but this thread waits for it. So one that ends, at
    whatever moment, is seen as the end of its pipe; Python's pool may wait for ever for one that
    ends while another is being started.
    """

    process: BaseProcess
    pipe: connection.Connection

    def send(self, users: NDArray[np.int32]) -> None:
        try:
            self.pipe.send(users)
        except OSError as error:
            raise _EndedEarlyError from error

    def receive(self) -> NDArray[np.int64]:
        try:
            if self.pipe not in connection.wait([self.pipe, self.process.sentinel]):
                raise EOFError
            found = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _EndedEarlyError from error
        if isinstance(found, BaseException):
            raise found
        rows: NDArray[np.int64] = found
        return rows


@contextmanager
def _worker(computation: Computation) -> Iterator[_Worker]:
    """A process that shares nothing with this one: an open LMDB does not cross a fork."""
    context = process_context("torch")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, computation), daemon=True)
    try:
        with there:
            _start(process)
        yield _Worker(process, here)
    finally:
        here.close()  # one that is idle ends
        if process.pid is not None:
            process.kill()
            process.join()


def _start(process: BaseProcess) -> None:
    try:
        process.start()
    except OSError as error:  # it has ended before it was told what to do, or there is no room
        raise _EndedEarlyError from error


def _submit(workers: Sequence[_Worker], block: Block) -> list[NDArray[np.int64]]:
    """Send each its users of a block; [U] of each, where they are in it.

    A few blocks of indices are waiting in a pipe, which has room for them.
    """
    part = np.array([part_of(user, len(workers)) for user in block.ids], np.int64)
    members = [np.flatnonzero(part == number) for number in range(len(workers))]
    for worker, some in zip(workers, members, strict=True):
        if len(some):
            worker.send(block.index[some])
    return members


def _collected(
    workers: Sequence[_Worker], block: Block, members: list[NDArray[np.int64]]
) -> tuple[Block, NDArray[np.int64]]:
    found = [
        (some, worker.receive()) for worker, some in zip(workers, members, strict=True) if len(some)
    ]
    rows = np.empty((len(block.ids), *found[0][1].shape[1:]), np.int64)
    for some, of_them in found:
        rows[some] = of_them
    return block, rows


def _work(pipe: connection.Connection, computation: Computation) -> None:
    """Compute the users that come, until the other end is closed or whoever holds it has ended."""
    quieten()
    torch.set_num_threads(1)
    embedder = None
    with suppress(EOFError, OSError):
        while True:
            users = pipe.recv()
            try:
                # opened at the first block: what is wrong with it is told to who waits for that
                embedder = embedder or computation.embedder()
                answer = embedder.many_rows(users)
            except Exception as error:
                pipe.send(error)
            else:
                pipe.send(answer)
