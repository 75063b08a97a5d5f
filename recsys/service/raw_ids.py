"""Raw ids of a log and their indices, looked up many times a second.

Legend: n ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.ids import as_ids
from recsys.data.stores.live.rows import LATER
from recsys.data.stores.vocabulary import INDEX, RAW, UNKNOWN_INDEX, Vocabulary, stable_hash


class RawIds:
    """A vocabulary, sorted.

    Args:
        vocabulary: of users or items.

    Attributes:
        size: indices, the unknown id's 0 among them.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        table = vocabulary.table.sort(RAW)
        self._raw = table[RAW]
        self._index = table[INDEX].to_numpy().astype(np.int64)
        self.size = vocabulary.size
        first = vocabulary.table.unique(INDEX, keep="first")
        indices = pl.DataFrame({INDEX: np.arange(self.size, dtype=np.int32)})
        self._of_index = indices.join(first, on=INDEX, how="left", maintain_order="left")[RAW]

    def indices(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """[n] of ids as they are written; 0 for those that are not known."""
        return self._found(ids)[0]

    def reported(self, ids: Sequence[int | str]) -> NDArray[np.int64]:
        """[n] as ``indices``; one that is not known is an index that the data set does not have.

        So events of two users of whom nothing is known are not taken for one event.
        """
        found, known = self._found(ids)
        if not known.all():
            text = pl.Series([str(one) for one in ids])
            free = np.uint64(LATER - self.size)
            drawn = self.size + (stable_hash(text) % free).astype(np.int64)
            found = np.where(known, found, drawn)
        return found

    def raw(self, indices: NDArray[np.int64]) -> list[int | str | None]:
        """[n] ids of indices; of those that share one the first; None for 0."""
        return self._of_index.gather(indices).to_list()

    def _found(self, ids: Sequence[int | str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        text = pl.Series(RAW, [str(one) for one in ids], pl.String())
        given = as_ids(text, self._raw.dtype)
        place = self._raw.search_sorted(given).to_numpy().astype(np.int64)
        inside = np.minimum(place, max(len(self._raw) - 1, 0))
        if not len(self._raw):
            return np.zeros(len(text), np.int64), np.zeros(len(text), bool)
        known = (self._raw.gather(inside) == given).fill_null(False).to_numpy()
        return np.where(known, self._index[inside], UNKNOWN_INDEX), known
