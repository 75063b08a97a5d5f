"""Computing a publication's embeddings on several processes of one machine.

Users are divided by a hash of their ids. The processes compute and write nothing: their rows come
back to the one that publishes, which writes them in the order of the keys and moves the pointer
last. So the store holds what one process would have written, and one that ends early leaves
nothing.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.core.errors import ArtifactError
from recsys.core.folders import read_whole
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
    with _pool(processes) as pool:
        waiting: deque[tuple[Block, list[_Part]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, _submit(pool, computation, block, processes)))
                if len(waiting) > _BLOCKS_AHEAD:
                    yield _collected(*waiting.popleft())
            while waiting:
                yield _collected(*waiting.popleft())
        except BrokenProcessPool as error:
            raise ArtifactError(
                f"One of the {processes} processes that compute embeddings has ended early (it was "
                "killed, or memory is short); nothing was published. Publish again, if need be on "
                "fewer: each holds the whole tower."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def part_of(user: UserId, processes: int) -> int:
    """The process that computes a user."""
    return zlib.crc32(encode_user(user)) % processes


@dataclass(frozen=True, eq=False)
class _Part:
    """Some users of a block, and their rows to come."""

    members: NDArray[np.int64]
    rows: Future[NDArray[np.int64]]


def _submit(
    pool: ProcessPoolExecutor, computation: Computation, block: Block, processes: int
) -> list[_Part]:
    part = np.array([part_of(user, processes) for user in block.ids], np.int64)
    members = [np.flatnonzero(part == number) for number in range(processes)]
    try:
        return [
            _Part(some, pool.submit(_compute, computation, block.index[some]))
            for some in members
            if len(some)
        ]
    except (ValueError, OSError) as error:
        # where one ends while the next is being started, the pool has closed its files under it
        raise BrokenProcessPool("a process ended while another was started") from error


def _collected(block: Block, parts: list[_Part]) -> tuple[Block, NDArray[np.int64]]:
    found = [(part.members, part.rows.result()) for part in parts]
    rows = np.empty((len(block.ids), *found[0][1].shape[1:]), np.int64)
    for members, some in found:
        rows[members] = some
    return block, rows


def _pool(processes: int) -> ProcessPoolExecutor:
    """Processes that share nothing with this one: an open LMDB does not cross a fork."""
    return ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )


def _begin() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quieten()
    torch.set_num_threads(1)


def _compute(computation: Computation, users: NDArray[np.int32]) -> NDArray[np.int64]:
    return _embedder(computation).many_rows(users)


@functools.lru_cache(maxsize=1)
def _embedder(computation: Computation) -> TimelineEmbedder:
    """Opened at the first block: what is wrong with it is told to who waits for that."""
    return computation.embedder()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
