"""Items on their way into an index: which of them can be used, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import DataError
from recsys.data.content.usable_rows import usable_rows
from recsys.data.contract.ids import checked_ids
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.vocabulary import FIRST_SEEN

POST_ID = "post_id"  # raw, as in the log
TITLE = "title"
LAST_SEEN = "last_seen"  # ms
REASON = "reason"

FUTURE = "first seen at as_of or later"
TOO_OLD = "last seen longer than max_age_hours before as_of"

#: Columns that describe an item; only the id is needed.
OPTIONAL_COLUMNS: dict[str, pl.DataType] = {
    TITLE: pl.String(),
    FIRST_SEEN: pl.Int64(),
    LAST_SEEN: pl.Int64(),
}


@dataclass(frozen=True, eq=False)
class UsableItems:
    """Items with an embedding that has a direction, each id once.

    Attributes:
        table: ``post_id``, ``title``, ``first_seen``, ``last_seen``.
        embedding: [P, W] float32, L2-normalised.
        rejected: ``post_id`` and ``reason`` of every row that was left out.
    """

    table: pl.DataFrame
    embedding: NDArray[np.float32]
    rejected: pl.DataFrame

    @classmethod
    def of(cls, items: pl.DataFrame, embedding: ArrayLike) -> Self:
        """Sort out what cannot be used, as training does (``usable_rows``).

        Args:
            items: ``post_id`` (whole numbers or text) and any of ``OPTIONAL_COLUMNS``.
            embedding: [P, W], a row per item.

        Raises:
            DataError: a column is missing or of another type, or there is not one embedding per
                item.
        """
        table = _table(items)
        rows = np.asarray(embedding, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(table):
            raise DataError(
                f"There are {len(table)} items and embeddings of shape {rows.shape}; expected one "
                "row of numbers per item."
            )
        reason, normalised = usable_rows(table[POST_ID], rows)
        rejected = table.select(POST_ID, reason.alias(REASON)).filter(reason != "")
        return cls(table.filter(reason == ""), normalised, rejected)


def last_known() -> pl.Expr:
    """When an item was seen last as far as is known (ms); null for one without any time."""
    return pl.coalesce(LAST_SEEN, FIRST_SEEN)


def _table(items: pl.DataFrame) -> pl.DataFrame:
    if POST_ID not in items.columns:
        raise DataError(
            f"The items have no column {POST_ID} (they have {', '.join(items.columns)}); name the "
            "column of raw ids so."
        )
    ids = checked_ids("the items", items[POST_ID])
    if ids.null_count():
        raise DataError(f"Column {POST_ID} of the items has {ids.null_count()} empty rows.")
    columns = [ids]
    for name, dtype in OPTIONAL_COLUMNS.items():
        if name in items.columns:
            columns.append(items[name].cast(dtype))
        else:
            columns.append(pl.repeat(None, len(items), dtype=dtype, eager=True).alias(name))
    return pl.DataFrame(columns)


def out_of_time(table: pl.DataFrame, as_of: int | None, max_age_hours: float | None) -> pl.Series:
    """Why an item is left out for its times; null for those that are kept."""
    reason = pl.lit(None, pl.String())
    if max_age_hours is not None and as_of is not None:
        oldest = as_of - round(max_age_hours * MILLISECONDS_PER_HOUR)
        reason = pl.when(last_known() < oldest).then(pl.lit(TOO_OLD)).otherwise(reason)
    if as_of is not None:
        reason = pl.when(pl.col(FIRST_SEEN) >= as_of).then(pl.lit(FUTURE)).otherwise(reason)
    return table.with_columns(reason.alias(REASON))[REASON]


def left_out(table: pl.DataFrame, reasons: pl.Series) -> pl.DataFrame:
    """``post_id`` and ``reason`` of the items of a table that have one."""
    return table.select(POST_ID).with_columns(reasons).filter(reasons.is_not_null())
