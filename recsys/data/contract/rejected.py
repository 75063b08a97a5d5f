"""Rows that cannot be used: counted by reason and written aside."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.contract.files import describe_type
from recsys.data.contract.parquet import parquet_writer

REASON = "rejection_reason"
DETAIL = "rejection_detail"
#: Reason of events that a data set may have already; such rows are counted, not written aside.
NOT_LATER = "not after the last event of the data set"
#: Reasons of rows that are there once already.
DUPLICATED_EVENT = "event: duplicated row"
DUPLICATED_REQUEST = "request row: duplicated row"


class Misfits:
    """Notes, per row of a chunk, the first value that does not fit its column's type.

    Args:
        rows: number of rows.
    """

    def __init__(self, rows: int) -> None:
        nothing = pl.repeat(None, rows, dtype=pl.String, eager=True)
        self._notes = pl.DataFrame({REASON: nothing, DETAIL: nothing})

    def note(
        self, name: str, raw: pl.Series, typed: pl.Series, expected: str | None = None
    ) -> None:
        """Note where ``typed`` has lost a value of ``raw``.

        Args:
            name: of the column, as it stands in the reason.
            raw: the column as it was read.
            typed: the same after a cast that makes misfits null.
            expected: what a value that fits is; its type in words where None.
        """
        if typed.null_count() == raw.null_count():
            return
        misfit = typed.is_null() & raw.is_not_null()
        first = misfit & self._notes[REASON].is_null()
        reason = pl.lit(f"{name} is not {expected or describe_type(typed.dtype)}")
        self._notes = self._notes.select(
            pl.when(first).then(reason).otherwise(REASON).alias(REASON),
            pl.when(first).then(raw.cast(pl.String)).otherwise(DETAIL).alias(DETAIL),
        )

    @property
    def columns(self) -> list[pl.Series]:
        """``rejection_reason`` and ``rejection_detail``, null where everything fits."""
        return self._notes.get_columns()


class SetAside:
    """Keeps rejected rows of a piece of the work in memory, for the one who writes them.

    Attributes:
        frames: calls of :meth:`RejectedRows.add`, in their order.
        counts: those of :meth:`RejectedRows.count`.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[pl.DataFrame, str | None]] = []
        self.counts: Counter[str] = Counter()

    def add(self, rows: pl.DataFrame, reason: str | None = None) -> None:
        """Set rows aside, as :meth:`RejectedRows.add`."""
        if not rows.is_empty():
            self.frames.append((rows, reason))

    def count(self, reason: str, rows: int) -> None:
        """Count rows that need not be written aside."""
        self.counts[reason] += rows

    def take(self, aside: SetAside) -> None:
        """Keep what another piece of the work has set aside."""
        self.frames += aside.frames
        self.counts.update(aside.counts)


class RejectedRows:
    """Collects rejected rows in ``folder``, one Parquet file per reason, every value as text.

    Args:
        folder: where the files go; made when the first row comes.

    Attributes:
        counts: rejected rows by reason.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: dict[str, int] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def add(self, rows: pl.DataFrame, reason: str | None = None) -> None:
        """Write rows aside.

        Args:
            rows: the rows, with their reason in the column ``rejection_reason`` unless given.
            reason: one reason for all of them.
        """
        if rows.is_empty():
            return
        if reason is not None:
            rows = rows.with_columns(pl.lit(reason).alias(REASON))
        if DETAIL not in rows.columns:
            rows = rows.with_columns(pl.lit(None, pl.String).alias(DETAIL))
        for part in rows.partition_by(REASON):
            self.count(part[REASON][0], part.height)
            self._write(part[REASON][0], part)

    def take(self, aside: SetAside) -> None:
        """Write aside what a piece of the work has set aside."""
        for rows, reason in aside.frames:
            self.add(rows, reason)
        for why, number in aside.counts.items():
            self.count(why, number)

    def count(self, reason: str, rows: int) -> None:
        """Count rows that need not be written aside."""
        if rows:
            self.counts[reason] = self.counts.get(reason, 0) + rows

    def close(self) -> None:
        """Finish the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, reason: str, rows: pl.DataFrame) -> None:
        table = rows.select(pl.all().cast(pl.String)).to_arrow()
        writer = self._writers.get(reason)
        if writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_")
            writer = parquet_writer(self.folder / f"{name}.parquet", table.schema)
            self._writers[reason] = writer
        missing = [name for name in writer.schema.names if name not in table.schema.names]
        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.large_string()))
        writer.write_table(table.select(writer.schema.names).cast(writer.schema))
