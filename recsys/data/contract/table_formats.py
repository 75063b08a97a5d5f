"""Tables that commands write, in the format that the file's ending names.

A file of before is replaced only if its beginning says that this command has written it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow.parquet as pq

from recsys.core.durable import replaced_file
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.folders import check_file
from recsys.data.contract.files import column_names
from recsys.data.contract.given_tables import JSON_LINES_SUFFIXES
from recsys.data.contract.parquet import parquet_writer, read_metadata

#: Key of the Parquet metadata by which a file is known.
MADE_BY = "made_by"

_PARQUET, _CSV = (".parquet", ".pq"), (".csv", ".tsv")

#: Endings of tables.
TABLE_ENDINGS = (*_CSV, *_PARQUET, *sorted(JSON_LINES_SUFFIXES))

Write = Callable[[pl.DataFrame], None]


def check_ending(out: str, endings: Iterable[str] = TABLE_ENDINGS) -> None:
    """Refuse a file whose ending names no format.

    Raises:
        ConfigError: it does not.
    """
    if Path(out).suffix.lower() not in endings:
        raise ConfigError(
            f"out={out}: the ending says in which format it is written; give one of "
            f"{', '.join(endings)}."
        )


def check_table(
    path: Path, made_by: str, first: Iterable[str], inputs: Iterable[Path | str] = ()
) -> None:
    """Check that a command may write a table to ``path``: new, or a table it has written before.

    Args:
        path: its ending is checked already.
        made_by: the command.
        first: names of the columns that its tables begin with.
        inputs: what the command reads.

    Raises:
        ConfigError: it may not.
    """
    names = list(first)
    check_file(path, lambda there: _is_ours(there, made_by, names), inputs)


@contextmanager
def table_writer(path: Path, made_by: str) -> Iterator[Write]:
    """Writes frames of one schema, one after the other; a failure leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix.lower()
    with replaced_file(path) as partial:
        if ending in _PARQUET:
            with _parquet(partial, made_by) as write:
                yield write
        else:
            with partial.open("wb") as file:
                yield _json_lines(file) if ending in JSON_LINES_SUFFIXES else _csv(file, ending)


def write_table(frames: Iterable[pl.DataFrame], path: Path, made_by: str) -> None:
    """Write frames of one schema, at least one, as they come."""
    with table_writer(path, made_by) as write:
        for frame in frames:
            write(frame)


@contextmanager
def _parquet(path: Path, made_by: str) -> Iterator[Write]:
    writers: list[pq.ParquetWriter] = []

    def write(frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if not writers:
            schema = table.schema.with_metadata({MADE_BY: made_by})
            writers.append(parquet_writer(path, schema, compression="zstd"))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


def _csv(file: IO[bytes], ending: str) -> Write:
    separator = "\t" if ending == ".tsv" else ","
    begun = False

    def write(frame: pl.DataFrame) -> None:
        nonlocal begun
        frame.write_csv(file, separator=separator, include_header=not begun)
        begun = True

    return write


def _json_lines(file: IO[bytes]) -> Write:
    def write(frame: pl.DataFrame) -> None:
        frame.write_ndjson(file)

    return write


def _is_ours(path: Path, made_by: str, first: list[str]) -> bool:
    """Whether a file begins as the command's tables do."""
    ending = path.suffix.lower()
    try:
        if ending in _PARQUET:
            return read_metadata(path).get(MADE_BY) == made_by
        if ending in JSON_LINES_SUFFIXES:
            with path.open(encoding="utf-8") as file:
                return list(json.loads(file.readline()))[: len(first)] == first
        return column_names(path)[: len(first)] == first
    except (OSError, ValueError, TypeError, RecsysError, pl.exceptions.PolarsError):
        return False
