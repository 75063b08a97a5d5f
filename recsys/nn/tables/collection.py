"""The embedding tables of the slices, shared by cell pooling and per-slice pooling.

Legend: B requests, E events, L lookups, C cells, S slices, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from recsys.core.bounds import CountOrZero, NotNegative, Settings
from recsys.core.errors import ConfigError
from recsys.data.slices.slice_set import SliceTable
from recsys.nn.tables.first_rows import FirstRows, Normal, Undrawn, Uniform, start_part

MAX_ROWS = 2**31 - 1
#: Where a part of a table begins, its row and column, and the part.
Shard = tuple[tuple[int, ...], Tensor]
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

        def finish(weight: Tensor) -> None:
            weight.copy_(evenly_spread(weight) * spread)

        return FirstRows(
            id_type, Normal(spread), torch.initial_seed(), finish, finished_rows=self.even_rows
        )


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


def uniform_rows(name: str, bound: float) -> FirstRows:
    """Rows of a table between -bound and bound, by torch's seed."""
    return FirstRows(name, Uniform(bound), torch.initial_seed())


_MEMORY: ContextVar[bool] = ContextVar("whether new tables get memory", default=True)


@contextmanager
def tables_without_memory() -> Iterator[None]:
    """Give tables that are built within the block a size but no rows.

    For plans, and for who places them: they get their rows where they are trained
    (``start_table``). Everything else starts as it does beside tables with memory.
    """
    token = _MEMORY.set(False)
    try:
        yield
    finally:
        _MEMORY.reset(token)


def bag_collection(
    tables: Sequence[EmbeddingBagConfig],
    is_weighted: bool = False,
    device: torch.device | None = None,
) -> EmbeddingBagCollection:
    """TorchRec's collection; every table of ours is made here, and filled by ``FirstRows``.

    Raises:
        ValueError: a table's ``init_fn`` is something else.
    """
    if not all(isinstance(table.init_fn, FirstRows) for table in tables):
        raise ValueError("a table has no FirstRows as its init_fn")
    with Undrawn():
        return EmbeddingBagCollection(
            tables=list(tables),
            is_weighted=is_weighted,
            device=device if _MEMORY.get() else torch.device("meta"),
        )


@torch.no_grad()
def start_table(
    collection: EmbeddingBagCollection, table: EmbeddingBagConfig, shards: Iterable[Shard]
) -> None:
    """Give parts of a placed table the rows it has, or those it starts with if it has no memory.

    Args:
        collection: that has been built.
        table: one of it.
        shards: where a part begins in the table, and the part.
    """
    weight = collection.embedding_bags[table.name].weight
    for begin, part in shards:
        if weight.is_meta:
            start_part(part, begin, weight.shape, table.init_fn)
        else:
            row, column = begin
            rows = weight.detach()[row : row + part.shape[0], column : column + part.shape[1]]
            part.detach().copy_(rows)


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
