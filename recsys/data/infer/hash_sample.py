"""Distinct values of a column of any length in bounded memory."""

from __future__ import annotations

import polars as pl

#: Values kept at most; of more, every second is left out, then every fourth, and so on.
KEPT = 1 << 20
_PENDING = 4 * KEPT
_ALL = 1 << 64


class HashSample:
    """Counts values by their hashes: all of them, or of very many a share chosen by the hash.

    A value is in the sample in all of its rows or in none, so counts of a sampled value are exact,
    and two samples of the same share hold the same values.

    Args:
        kept: values at most.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._limit = _ALL
        self._table = pl.DataFrame(schema={"hash": pl.UInt64, "count": pl.UInt32})
        self._pending: list[pl.DataFrame] = []
        self._waiting = 0

    def add(self, hashes: pl.Series) -> None:
        """Count the values of a chunk.

        Args:
            hashes: of its values, from :func:`hashes_of`.
        """
        if self._limit < _ALL:
            hashes = hashes.filter(hashes < self._limit)
        counted = hashes.alias("hash").value_counts().cast({"count": pl.UInt32})
        self._pending.append(counted)
        self._waiting += counted.height
        if self._waiting > _PENDING:
            self._merge()

    @property
    def share(self) -> float:
        """Share of the different values that are in the sample."""
        self._merge()
        return self._limit / _ALL

    @property
    def distinct(self) -> int:
        """Number of different values; from a sample an estimate."""
        self._merge()
        return round(self._table.height / self.share)

    @property
    def counts(self) -> pl.Series:
        """Rows of each value of the sample."""
        self._merge()
        return self._table["count"]

    def repeated(self) -> int:
        """Rows beside the first of their value; from a sample an estimate."""
        counts = self.counts
        return round((int(counts.sum()) - len(counts)) / self.share)

    def found_in(self, other: HashSample) -> tuple[float, float]:
        """Share of the values, and of their rows, that another sample has too; 0 without any."""
        limit = min(self._merged_limit(), other._merged_limit())
        mine = self._table.filter(pl.col("hash") < limit) if limit < _ALL else self._table
        if mine.is_empty():
            return 0.0, 0.0
        both = mine.join(other._table.select("hash"), on="hash", how="semi")
        return both.height / mine.height, int(both["count"].sum()) / int(mine["count"].sum())

    def _merged_limit(self) -> int:
        self._merge()
        return self._limit

    def _merge(self) -> None:
        if not self._pending:
            return
        parts = pl.concat([self._table, *self._pending])
        self._pending, self._waiting = [], 0
        table = parts.group_by("hash").agg(pl.col("count").sum())
        while table.height > self._kept:
            self._limit //= 2
            table = table.filter(pl.col("hash") < self._limit)
        if self._limit < _ALL:
            table = table.filter(pl.col("hash") < self._limit)
        self._table = table


def hashes_of(ids: pl.Series) -> pl.Series:
    """Hashes of ids; a number and a text that is written like it have one."""
    return ids.cast(pl.String).hash(seed=0)
