"""The embedding tables of the slices, shared by cell pooling and per-slice pooling.

Legend: B requests, E events, L lookups, C cells, S slices, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from recsys.data.slices import SliceTable
from recsys.errors import ConfigError

MAX_ROWS = 2**31 - 1


def build_tables(
    tables: Sequence[SliceTable],
    features: Mapping[str, Sequence[str]],
    table_rows: Mapping[str, int],
    dimension: int,
    weighted: bool,
    device: torch.device | None = None,
) -> EmbeddingBagCollection | None:
    """A TorchRec collection of the plain or of the weighted tables, with sum pooling.

    Args:
        tables: the tables of a slice set.
        features: per table name the keys that are looked up in it; a table without any (all its
            slices are empty on this data set) is not built.
        table_rows: rows of a table per id type (``item``, ``author``, ``topic``).
        dimension: width D of a row.
        weighted: which of the tables to build.
        device: where the tables live.

    Returns:
        The collection; ``None`` where the slice set has no such table.

    Raises:
        ConfigError: an id type has no number of rows, or one that cannot be used.
    """
    configs = [
        EmbeddingBagConfig(
            name=table.name,
            embedding_dim=dimension,
            num_embeddings=_rows(table_rows, table.id_type.value),
            feature_names=list(features[table.name]),
            pooling=PoolingType.SUM,
        )
        for table in tables
        if table.weighted == weighted and features[table.name]
    ]
    if not configs:
        return None
    return EmbeddingBagCollection(tables=configs, is_weighted=weighted, device=device)


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


def weighted_mean(slice_sum: Tensor, slice_weight: Tensor) -> Tensor:
    """Sums [B, S, D] over weights [B, S]; a slice without events is the zero vector."""
    weight = torch.where(slice_weight > 0, slice_weight, torch.ones_like(slice_weight))
    return slice_sum / weight.unsqueeze(-1)
