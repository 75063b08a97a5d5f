"""Parquet files of others, read in pieces and by rows; a damaged one is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.core.errors import DataError
from recsys.data.contract.file_names import error_of_store
from recsys.data.contract.parquet import open_parquet


def open_table(path: Path) -> pq.ParquetFile:
    """A file whose columns and rows can be asked for.

    Raises:
        DataError: it is empty or damaged.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); write the file again or remove it.")
    try:
        return open_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged_parquet(path, error) from error


def _damaged_parquet(path: Path, error: Exception) -> DataError:
    if (refused := error_of_store(path, error)) is not None:
        return refused
    return DataError(
        f"{path} is not a complete Parquet file ({str(error).splitlines()[0].rstrip('.')}); "
        "it was cut off or damaged: copy or write it again."
    )


def schema_of(path: Path) -> dict[str, pl.DataType]:
    """Types of the columns that have a name; of those that stand there twice the last."""
    types: dict[str, pl.DataType] = {}
    for field in open_table(path).schema_arrow:  # one by one: names may stand there twice
        if field.name:
            types |= to_frame(pa.schema([field]).empty_table()).schema
    return types


def read_parquet_rows(
    path: Path, columns: list[str], chunk_rows: int, rows: tuple[int, int] | None
) -> Iterator[pl.DataFrame]:
    """Rows from the first of ``rows`` to the one before the last, or all, in pieces."""
    with open_table(path) as file:
        ends = np.cumsum([file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)])
        first, last = rows or (0, file.metadata.num_rows)
        # the row groups that hold them, of which the first may begin before them
        groups = range(int(np.searchsorted(ends, first, "right")), len(ends))
        groups = groups[: int(np.searchsorted(ends[groups.start :], last)) + 1]
        begin = int(ends[groups.start - 1]) if groups.start else 0
        batches = file.iter_batches(batch_size=chunk_rows, columns=columns, row_groups=groups)
        yield from _cut(_frames(path, batches), first - begin, last - begin, chunk_rows)


def _cut(
    frames: Iterator[pl.DataFrame], first: int, last: int, size: int
) -> Iterator[pl.DataFrame]:
    """Rows ``[first, last)`` of what the frames hold, in pieces of ``size``."""
    rest, position = pl.DataFrame(), 0
    for frame in frames:
        position += frame.height
        begin = position - frame.height
        frame = frame.slice(max(0, first - begin), max(0, min(last, position) - max(first, begin)))
        rest = pl.concat([rest, frame]) if rest.height else frame
        while rest.height >= size:
            yield rest.head(size)
            rest = rest.slice(size)
    if rest.height:
        yield rest


def _frames(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pl.DataFrame]:
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)  # damaged text is no UTF-8, which polars takes on trust
        except (pa.ArrowException, OSError) as error:
            raise _damaged_parquet(path, error) from error
        yield to_frame(pa.Table.from_batches([batch]))


def to_frame(table: pa.Table) -> pl.DataFrame:
    """A table of Arrow as one of polars."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
