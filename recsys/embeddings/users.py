"""Every user of a prepared data set: raw ids beside indices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.embeddings.stores.base import UserId


@dataclass(frozen=True, eq=False)
class Users:
    """Raw ids [U] and indices [U], in order of first appearance."""

    raw: NDArray[Any]
    index: NDArray[np.int32]

    @classmethod
    def of(cls, dataset: PreparedDataset) -> Self:
        """The users of a prepared data set.

        Raises:
            DataError: its vocabulary of users is missing.
        """
        table = dataset.vocabulary("user").table
        raw = table[RAW]
        ids = raw.to_numpy() if raw.dtype != pl.String else np.array(raw.to_list(), dtype=object)
        return cls(ids, table[INDEX].to_numpy())

    def ids(self, positions: NDArray[np.int64]) -> list[UserId]:
        """Raw ids at some positions."""
        found: list[UserId] = self.raw[positions].tolist()
        return found

    def unknown(self, ids: Iterable[UserId]) -> list[UserId]:
        """Those of ``ids`` that the data set does not know."""
        known = set(self.raw.tolist())
        return [user for user in ids if user not in known]
