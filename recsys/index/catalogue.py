"""Items that can be recommended, by number, and what all indexes of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, DataError
from recsys.data.contract.ids import as_ids, checked_ids
from recsys.index.faiss.search import NONE
from recsys.index.manifest import IndexManifest
from recsys.index.usable_items import OPTIONAL_COLUMNS, POST_ID, last_known

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
        return cls(numbered(items))

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


def numbered(items: pl.DataFrame) -> pl.DataFrame:
    """Items with slots in their order."""
    return items.select(pl.int_range(pl.len(), dtype=pl.Int64).alias(SLOT), pl.all())


@dataclass(frozen=True, eq=False)
class Added:
    """What adding items did.

    Attributes:
        added: items that were not in the index.
        replaced: items that were, whose embedding is the new one now.
        rejected: ``post_id`` and ``reason`` of rows that were left out.
    """

    added: int
    replaced: int
    rejected: pl.DataFrame


@dataclass(frozen=True)
class Removed:
    """What removing items did.

    Attributes:
        removed: items that were in the index.
        unknown: ids that were not.
    """

    removed: int
    unknown: int


class StoredIndex(Catalogue, ABC):
    """Items with what finds the best, as a folder holds them.

    Attributes:
        manifest: what it is.
    """

    def __init__(self, items: pl.DataFrame, manifest: IndexManifest) -> None:
        super().__init__(items)
        self.manifest = manifest

    @abstractmethod
    def write(self, folder: Path, number: int) -> list[Path]:
        """Write its files, whose names have a number; returns them."""

    @abstractmethod
    def _drop(self, slots: NDArray[np.int64]) -> None:
        """Take out the items at some slots."""

    def check_model(self, model: str, made_by: str, way_out: str = "") -> None:
        """Refuse embeddings of another model.

        Args:
            model: identity of the embeddings that are to be compared with the items' here.
            made_by: what has that identity, for the sentence.
            way_out: what else may be done, behind the sentence.

        Raises:
            ArtifactError: the index was built for another model.
        """
        if model != self.manifest.model:
            raise ArtifactError(
                f"The index was built from the item embeddings {self.manifest.model[:12]}…, "
                f"{made_by} belongs to {model[:12]}…: their scores would mean nothing; build the "
                "index again with `recsys index build`, or take the model it was built for"
                f"{way_out}."
            )

    def remove(self, ids: pl.Series) -> Removed:
        """Take items out by their raw ids; none of them is found from now on.

        Raises:
            DataError: ids are of another type.
        """
        distinct = ids.unique()
        slots = self.slots(distinct)
        slots = slots[slots != NONE]
        self._drop(slots)
        return Removed(len(slots), len(distinct) - len(slots))

    def last_seen_before(self, moment: int) -> pl.Series:
        """Raw ids of items that were last seen before ``moment`` (ms); none without a time."""
        return self.items.filter(last_known() < moment)[POST_ID]

    def _with_ids_of_index(self, table: pl.DataFrame) -> pl.DataFrame:
        ids = as_ids(table[POST_ID], self.items.schema[POST_ID])
        if ids.null_count():
            other = table[POST_ID].filter(ids.is_null())[0]
            raise DataError(
                f"The new items have the id {other!r}, those of the index are whole numbers "
                f"({str(ids.dtype).lower()}); give the ids as they are in the log, or build the "
                "index again with `recsys index build`."
            )
        return table.with_columns(ids)

    def _with_former_columns(self, table: pl.DataFrame) -> pl.DataFrame:
        joined = table.join(
            self.items, on=POST_ID, how="left", maintain_order="left", suffix="_former"
        )
        return joined.select(
            POST_ID,
            *(pl.coalesce(name, f"{name}_former").alias(name) for name in OPTIONAL_COLUMNS),
        )


def now() -> str:
    """This moment as manifests have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
