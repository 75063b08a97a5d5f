"""A small index and a step's users, for the tests of single stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import IndexConfig
from recsys.index.faiss.search import NONE
from recsys.serving.pipeline import StepUsers

WIDTH = 8


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    """[count, W], none of them near another by chance."""
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def index_of(ids: Sequence[int | str], kind: str = "flat", **columns: list) -> ItemIndex:
    items = pl.DataFrame({"post_id": list(ids), **columns})
    return ItemIndex.build(items, embeddings(len(ids)), "a" * 64, IndexConfig(kind=kind))[0]


def step(indices: Sequence[int], moment: int = 0, raw: pl.Series | None = None) -> StepUsers:
    """Users whose raw id is 100 + their index."""
    ids = pl.Series([100 + index for index in indices], dtype=pl.Int64) if raw is None else raw
    return StepUsers(ids, np.array(indices, np.int64), moment)


def ids_at(index: ItemIndex, slots: np.ndarray) -> list:
    """Raw ids of the items at some slots, without the empty places."""
    return index.at(slots[slots != NONE])["post_id"].to_list()
