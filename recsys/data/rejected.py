"""Rows that cannot be used: counted by reason and written aside."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

REASON = "rejection_reason"
DETAIL = "rejection_detail"


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
        for part in rows.partition_by(REASON):
            self.count(part[REASON][0], part.height)
            self._write(part[REASON][0], part)

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
            writer = pq.ParquetWriter(self.folder / f"{name}.parquet", table.schema)
            self._writers[reason] = writer
        missing = [name for name in writer.schema.names if name not in table.schema.names]
        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.large_string()))
        writer.write_table(table.select(writer.schema.names).cast(writer.schema))
