"""Computing a publication's embeddings by an engine: this process, several, or Ray's workers.

Users are divided by a hash of their ids. The workers compute and write nothing: their rows come
back to the process that publishes, which writes them in the order of the keys and moves the
pointer last. So the store holds what one process would have written, and one that ends early leaves
nothing.
"""

from __future__ import annotations

import hashlib
import platform
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.timeline_tower import load_timeline_tower
from recsys.core.engines import Engine
from recsys.core.errors import ArtifactError
from recsys.core.folders import read_whole
from recsys.data.stores.timelines import TimelineStore
from recsys.embeddings.changes import Moment
from recsys.embeddings.compute import TimelineEmbedder
from recsys.embeddings.stores.base import UserId, encode_user


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
    """What a worker needs to compute rows.

    Attributes:
        artifact: the folder of the tower.
        identity: of the tower.
        timelines: the folder of the users' timelines.
        moment: as of when.
        batch_users: users per call of the tower.
        probe: users whose rows the process that publishes has computed.
        digest: of those rows.
        publication: tells one from a later one, before which the timelines may have grown.
    """

    artifact: Path
    identity: str
    timelines: Path
    moment: Moment
    batch_users: int
    probe: tuple[int, ...]
    digest: str
    publication: str = field(default_factory=lambda: secrets.token_hex(8))

    def embedder(self) -> TimelineEmbedder:
        """The tower and timelines, opened by this process.

        Raises:
            ArtifactError: the artifact is another one now, or this machine computes other bits.
        """
        # whoever publishes has found it to be trusted
        artifact = read_whole(self.artifact, lambda: load_timeline_tower(self.artifact, trust=True))
        if artifact.identity != self.identity:
            raise ArtifactError(
                f"{self.artifact} was exported anew while it was published; publish again."
            )
        timelines = TimelineStore.open(self.timelines)
        embedder = TimelineEmbedder(artifact, timelines, self.moment, self.batch_users)
        if digest(embedder.rows(np.array(self.probe, np.int32))) != self.digest:
            raise ArtifactError(
                f"The processor of {platform.node()} computes other bits of the same embeddings "
                "than that of the process that publishes; publish on machines of one kind."
            )
        return embedder


class ComputeRows:
    """Users → their rows, for whichever process is asked.

    Args:
        computation: what another process needs.
        embedder: of this process.
    """

    def __init__(self, computation: Computation, embedder: TimelineEmbedder | None = None) -> None:
        self._computation = computation
        self._embedder = embedder

    def __reduce__(self) -> tuple[type[ComputeRows], tuple[Computation]]:
        """To another process goes what it needs to open its own."""
        return ComputeRows, (self._computation,)

    def __call__(self, users: NDArray[np.int32]) -> NDArray[np.int64]:
        """Rows [U, N_out, n]."""
        # opened at the first users: what is wrong with it is told to who waits for them
        return (self._embedder or _opened(self._computation)).many_rows(users)


@lru_cache(maxsize=1)
def _opened(computation: Computation) -> TimelineEmbedder:
    """Of a worker, which keeps it for the next users."""
    torch.set_num_threads(1)
    return computation.embedder()


def digest(rows: NDArray[np.int64]) -> str:
    """Of rows, the same where every bit is."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def compute_blocks(
    blocks: Sequence[Block], compute: ComputeRows, engine: Engine
) -> Iterator[tuple[Block, NDArray[np.int64]]]:
    """Rows [U, N_out, n] of each block, in order.

    Args:
        blocks: of users.
        compute: users → rows.
        engine: does it.

    Raises:
        RecsysError: a worker has ended early.
    """
    members = [list(_members(block, engine.workers)) for block in blocks]
    pieces = (
        block.index[some] for block, parts in zip(blocks, members, strict=True) for some in parts
    )
    found = engine.map(compute, pieces, bulky=True)
    for block, parts in zip(blocks, members, strict=True):
        rows: NDArray[np.int64] | None = None
        for some in parts:
            of_them = next(found)
            if rows is None:
                rows = np.empty((len(block.ids), *of_them.shape[1:]), np.int64)
            rows[some] = of_them
        assert rows is not None  # no block is empty
        yield block, rows


def part_of(user: UserId, parts: int) -> int:
    """The part that a user belongs to."""
    return zlib.crc32(encode_user(user)) % parts


def _members(block: Block, parts: int) -> Iterator[NDArray[np.int64]]:
    """[U] of each part that has any, where they are in the block."""
    part = np.array([part_of(user, parts) for user in block.ids], np.int64)
    return (some for number in range(parts) if len(some := np.flatnonzero(part == number)))
