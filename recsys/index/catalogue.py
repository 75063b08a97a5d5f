"""Items that can be recommended, by number."""

from __future__ import annotations

from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.ids import as_ids, checked_ids
from recsys.index.faiss.search import NONE
from recsys.index.usable_items import POST_ID

#: Number of an item: given once, never again, kept until the catalogue is made anew.
SLOT = "slot"


class Catalogue:
    """Items and what is known of them, without a way to find the best.

    Attributes:
        items: ``slot``, ``post_id``, ``title``, ``first_seen``, ``last_seen`` of the items that can
            be found, by ascending slot.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        self.items = items

    @classmethod
    def of(cls, items: pl.DataFrame) -> Self:
        """The items of a table without slots, numbered in its order."""
        return cls(items.select(pl.int_range(pl.len(), dtype=pl.Int64).alias(SLOT), pl.all()))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def slots_given(self) -> int:
        """S: slots are below it, those of items that were removed since among them."""
        return int(self.items[SLOT].max() or 0) + 1  # type: ignore[arg-type]

    def slots(self, ids: pl.Series) -> NDArray[np.int64]:
        """[n] the slot of each raw id; −1 where there is none.

        Raises:
            DataError: none of them can be an id of the items, whose ids are numbers.
        """
        expected = self.items.schema[POST_ID]
        named = as_ids(checked_ids("the items", ids), expected)
        if named.null_count() == len(named) and ids.null_count() < len(ids):
            raise DataError(
                f"Items are named by ids such as {ids.drop_nulls()[0]!r}, those of the index are "
                f"whole numbers ({str(expected).lower()}); give the ids as they are in the log."
            )
        joined = pl.DataFrame({POST_ID: named}).join(
            self.items.select(POST_ID, SLOT), on=POST_ID, how="left", maintain_order="left"
        )
        slots: NDArray[np.int64] = joined[SLOT].fill_null(NONE).to_numpy()
        return slots

    def at(self, slots: NDArray[np.int64]) -> pl.DataFrame:
        """The rows of ``items`` at some slots, all of which have an item."""
        return self.items[self.rows(slots)]

    def rows(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which rows of ``items`` those are."""
        return np.searchsorted(self.items[SLOT].to_numpy(), slots)
