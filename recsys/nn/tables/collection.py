"""The embedding tables of the slices, shared by cell pooling and per-slice pooling.

Legend: B requests, E events, L lookups, C cells, S slices, D width.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto

import torch
import torch.nn.functional as F
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from recsys.core.bounds import CountOrZero, NotNegative, Settings
from recsys.core.errors import ConfigError
from recsys.data.slices.slice_set import SliceTable
from recsys.nn.tables.first_rows import FirstRows, collection_without_memory

MAX_ROWS = 2**31 - 1
#: Turns of ``evenly_spread``: the cosines come within a hundredth of their bound.
_TURNS = 30


@dataclass(frozen=True)
class IdSpread(Settings):
    """Standard deviation of an id's row at the start, per id type.

    All tables of an id type, those of the slices and the backbone's own, start with the same
    rows. Rows of different ids are nearly orthogonal, so from the first step on the dot product
    of a pooled slice with a candidate's row is about the share of the slice's events that have
    the candidate's id: what a user was interested in before anything is learned. Separate random
    tables would have to find each other first. The more ids there are, the less a row can learn,
    and the less it should say at the start.

    Random rows are only nearly orthogonal: of a slice with a dozen topics, a candidate's topic
    gets a share that is as much the others' as its own where D is small. A table of few rows
    can do better, ``evenly_spread``.

    Attributes:
        item: for items.
        author: for authors.
        topic: for topics.
        even_rows: tables of at most so many rows start evenly spread; 0 for random rows everywhere.
    """

    item: NotNegative = 0.02
    author: NotNegative = 0.2
    topic: NotNegative = 0.4
    even_rows: CountOrZero = 0

    def fill(self, id_type: str) -> FirstRows:
        """What fills a table of ``item``, ``author`` or ``topic`` rows, by torch's seed."""
        spread: float = getattr(self, id_type)

        def draw(weight: Tensor, generator: torch.Generator | None) -> None:
            weight.normal_(0, spread, generator=generator)

        def finish(weight: Tensor) -> None:
            weight.copy_(evenly_spread(weight) * spread)

        seed = (torch.initial_seed() + zlib.crc32(id_type.encode())) % 2**63
        return FirstRows(draw, seed, finish, self.even_rows)


DEFAULT_SPREAD = IdSpread()


def evenly_spread(rows: Tensor) -> Tensor:
    """Turns rows so that they are as orthogonal as n rows of width D can be.

    Orthogonal where n ≤ D. Elsewhere the mean square of the cosines between two rows falls from
    the 1 / D of random rows to Welch's bound (n − D) / (D (n − 1)), which 100 rows of width 64
    reach at a third. The nearest tight frame and the nearest rows of equal length are taken in
    turn.

    Args:
        rows: [n, D], random.

    Returns:
        [n, D], rows of length √D.
    """
    spread = F.normalize(rows.double(), dim=1)
    for _ in range(_TURNS):
        left, _, right = torch.linalg.svd(spread, full_matrices=False)
        spread = F.normalize(left @ right, dim=1)
    return (spread * math.sqrt(rows.shape[1])).to(rows.dtype)


def uniform_rows(bound: float) -> FirstRows:
    """Rows between -bound and bound, by torch's generator."""
    return FirstRows(lambda weight, generator: weight.uniform_(-bound, bound, generator=generator))


class _Memory(Enum):
    """What tables that are built get."""

    WHOLE = auto()
    NONE = auto()  # for plans
    SHARDS = auto()  # none yet


_MEMORY: ContextVar[_Memory] = ContextVar("memory of new tables", default=_Memory.WHOLE)


@contextmanager
def tables_without_memory() -> Iterator[None]:
    """Give tables that are built within the block a size, but no rows: for plans."""
    with _memory(_Memory.NONE):
        yield


@contextmanager
def tables_for_shards() -> Iterator[None]:
    """Leave the memory of tables that are built within the block to who shards them.

    Everything else starts as it does beside tables with memory.
    """
    with _memory(_Memory.SHARDS):
        yield


@contextmanager
def _memory(memory: _Memory) -> Iterator[None]:
    token = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(token)


def bag_collection(
    tables: Sequence[EmbeddingBagConfig],
    is_weighted: bool = False,
    device: torch.device | None = None,
) -> EmbeddingBagCollection:
    """TorchRec's collection; every table of ours is made here, and filled by ``FirstRows``."""
    memory = _MEMORY.get()
    if memory is _Memory.SHARDS:
        return collection_without_memory(tables, is_weighted)
    if memory is _Memory.NONE:
        device = torch.device("meta")
    return EmbeddingBagCollection(tables=list(tables), is_weighted=is_weighted, device=device)


def build_tables(
    tables: Sequence[SliceTable],
    features: Mapping[str, Sequence[str]],
    table_rows: Mapping[str, int],
    dimension: int,
    spread: IdSpread,
    device: torch.device | None = None,
) -> tuple[EmbeddingBagCollection | None, EmbeddingBagCollection | None]:
    """A TorchRec collection of the plain and one of the weighted tables, with sum pooling.

    Args:
        tables: the tables of a slice set.
        features: per table name the keys that are looked up in it; a table without any (all its
            slices are empty on this data set) is not built.
        table_rows: rows of a table per id type (``item``, ``author``, ``topic``).
        dimension: width D of a row.
        spread: of the rows at the start.
        device: where the tables live.

    Returns:
        The two collections; ``None`` where the slice set has no such table.

    Raises:
        ConfigError: an id type has no number of rows, or one that cannot be used.
    """
    plain, weighted = (
        [
            EmbeddingBagConfig(
                name=table.name,
                embedding_dim=dimension,
                num_embeddings=_rows(table_rows, table.id_type.value),
                feature_names=list(features[table.name]),
                pooling=PoolingType.SUM,
                init_fn=spread.fill(table.id_type.value),
            )
            for table in tables
            if table.weighted == is_weighted and features[table.name]
        ]
        for is_weighted in (False, True)
    )
    return (
        bag_collection(plain, is_weighted=False, device=device) if plain else None,
        bag_collection(weighted, is_weighted=True, device=device) if weighted else None,
    )


def _rows(table_rows: Mapping[str, int], id_type: str) -> int:
    rows = table_rows.get(id_type, 0)
    if not 0 < rows <= MAX_ROWS:
        raise ConfigError(
            f"The tables of id type {id_type!r} have {rows} rows; give each id type of the slice "
            f"set between 1 and {MAX_ROWS} rows (at most the vocabulary's size is of use)."
        )
    return rows


def hash_index(index: Tensor, rows: int) -> Tensor:
    """Fold vocabulary indices [E] into a table's rows: the identity where they fit.

    Indices first seen after training wrap around too, so a lookup is never out of bounds.
    """
    return torch.remainder(index, rows)
