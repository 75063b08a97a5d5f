"""What sources state of ids, looked up column by column in the order of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from recsys.data.contract.ids import as_ids
from recsys.data.stores.vocabulary import RAW, Vocabulary

_ROW = "row"


@dataclass(frozen=True)
class TableCounts:
    """What became of the rows of a table.

    Attributes:
        rows: of the table.
        repeated: left out, since their id came before.
        not_in_log: left out, since the log does not have their id; repeated ones are not among
            them.
        ids_without_row: ids of the log that the table has no row for.
    """

    rows: int
    repeated: int
    not_in_log: int
    ids_without_row: int


class StatedColumns:
    """Columns of some tables, a value per id of a vocabulary; of repeated ids the first row counts.

    A table is not joined as a whole: one column at a time is copied.

    Args:
        vocabulary: of the ids.
        tables: each with the column ``id_name``; a column is taken from the first that has it.
        id_name: the column of raw ids.
    """

    def __init__(
        self, vocabulary: Vocabulary, tables: Sequence[pl.DataFrame], id_name: str
    ) -> None:
        self._ids = vocabulary.table[RAW]
        self._tables = tables
        self._id_name = id_name
        self._places = [self._place(table) for table in tables]

    def __contains__(self, name: str) -> bool:
        return any(name in table.columns for table in self._tables)

    def column(self, name: str) -> pl.Series:
        """A column, null for ids that its table does not have."""
        for table, place in zip(self._tables, self._places, strict=True):
            if name in table.columns:
                return table[name].gather(place).alias(name)
        raise KeyError(name)

    def has_row(self, number: int) -> pl.Series:
        """Whether a table, given by its number, has a row for each id."""
        return self._places[number].is_not_null()

    def counts(self, number: int) -> TableCounts:
        """What became of the rows of a table, by its number."""
        table, place = self._tables[number], self._places[number]
        missing = place.null_count()
        distinct = table[self._id_name].n_unique()
        return TableCounts(
            rows=table.height,
            repeated=table.height - distinct,
            not_in_log=distinct - (len(place) - missing),
            ids_without_row=missing,
        )

    def _place(self, table: pl.DataFrame) -> pl.Series:
        """The row of each id in a table; null where it has none."""
        rows = pl.DataFrame(
            {
                RAW: as_ids(table[self._id_name], self._ids.dtype),
                _ROW: pl.int_range(table.height, dtype=pl.UInt32, eager=True),
            }
        )
        first = rows.drop_nulls(RAW).unique(RAW, keep="first", maintain_order=True)
        joined = self._ids.to_frame().join(first, on=RAW, how="left", maintain_order="left")
        return joined[_ROW]
