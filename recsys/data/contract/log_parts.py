"""What a log consists of, files or a frame, and the types of its ids over all of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from recsys.data.contract.file_names import (
    LIST_SEPARATOR,
    data_files,
    is_parquet,
    list_separator,
    partition_values,
)
from recsys.data.contract.files import column_types, num_rows, read_chunks
from recsys.data.contract.ids import IdType, is_text, may_exceed_int64, refuse_other_types
from recsys.data.contract.table_snapshots import TableSnapshot, with_snapshot

THE_FRAME = "the frame"

#: What a log may be given as.
LogData = Path | pl.DataFrame | pl.LazyFrame | TableSnapshot


@dataclass(frozen=True)
class LogPart:
    """A file of a log, or a log in memory.

    Attributes:
        where: what it is, for sentences.
        types: of its columns; those of a CSV file are all text.
        spelt_out: columns in which numbers come as text: those of a CSV file, and those that the
            names of folders say.
        chunks: reads some of its columns piece by piece.
        separator: stands between the values of a list that is written as text.
        path: of a file; None of a log in memory.
    """

    where: str
    types: dict[str, pl.DataType]
    spelt_out: frozenset[str]
    chunks: Callable[[list[str]], Iterator[pl.DataFrame]]
    separator: str = LIST_SEPARATOR
    path: Path | None = None


def name_of(data: LogData) -> str:
    """What a log is called in sentences."""
    return THE_FRAME if isinstance(data, (pl.DataFrame, pl.LazyFrame)) else str(data)


def log_parts(data: LogData, chunk_rows: int, setting: str = "path") -> list[LogPart]:
    """The parts of a log.

    Args:
        data: a Parquet or CSV file, a folder of them, a frame, or a snapshot of a table.
        chunk_rows: rows of a piece.
        setting: the key that names a file or folder, for the sentence.

    Raises:
        DataError: there is no file, or one cannot be read.
    """
    data = with_snapshot(data)
    if isinstance(data, pl.DataFrame):
        frame = data
        return [
            LogPart(
                THE_FRAME,
                dict(frame.schema),
                frozenset(),
                lambda columns: frame.select(columns).iter_slices(chunk_rows),
            )
        ]
    if isinstance(data, (pl.LazyFrame, TableSnapshot)):
        lazy = data.frame if isinstance(data, TableSnapshot) else data
        return [
            LogPart(
                name_of(data),
                dict(lazy.collect_schema()),
                frozenset(),
                lambda columns: lazy.select(columns).collect_batches(chunk_size=chunk_rows),
            )
        ]
    return [_of_file(path, chunk_rows) for path in data_files(data, setting)]


def _of_file(path: Path, chunk_rows: int) -> LogPart:
    types = column_types(path)
    spelt_out = partition_values(path).keys() if is_parquet(path) else types.keys()
    chunks = partial(read_chunks, path, chunk_rows=chunk_rows)
    return LogPart(str(path), types, frozenset(spelt_out), chunks, list_separator(path), path)


def parts_of(part: LogPart, chunk_rows: int, rows: int) -> list[LogPart]:
    """A file of a log in parts of so many rows; itself where its form does not say how many it has.

    Args:
        part: of a file.
        chunk_rows: rows of a piece.
        rows: of a part, a multiple of these.
    """
    path = part.path
    total = None if path is None else num_rows(path)
    if path is None or total is None:
        return [part]
    bounds = ((first, min(first + rows, total)) for first in range(0, total, rows))
    return [
        replace(part, chunks=partial(read_chunks, path, chunk_rows=chunk_rows, rows=bound))
        for bound in bounds
    ]


def id_types(parts: Sequence[LogPart], columns: Iterable[str]) -> dict[str, pl.DataType]:
    """The type of each column of ids that keeps every id of every part as it is written.

    A column that a file says is text is text. Values are looked at only where the files leave it
    open: in CSV, and where numbers may be too large for int64.

    Args:
        parts: of the log.
        columns: those that hold ids; one that no part has is int64.

    Raises:
        DataError: a column holds neither whole numbers nor text.
    """
    types: dict[str, pl.DataType] = {}
    open_columns: dict[str, IdType] = {}
    for column in columns:
        having = [part for part in parts if column in part.types]
        for part in having:
            refuse_other_types(part.where, column, part.types[column])
        types[column] = pl.Int64()
        written = [part for part in having if column not in part.spelt_out]
        if any(is_text(part.types[column]) for part in written):
            types[column] = pl.String()
        elif len(written) < len(having) or any(
            may_exceed_int64(part.types[column]) for part in written
        ):
            open_columns[column] = IdType()
    for part in parts:
        wanted = [column for column in open_columns if column in part.types]
        for chunk in part.chunks(wanted) if wanted else ():
            for column in wanted:
                open_columns[column].add(chunk[column], column in part.spelt_out)
    return types | {column: kind.dtype for column, kind in open_columns.items()}
