"""Files of text, columns apart by a delimiter: CSV, TSV and RecBole's atomic files."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv

from recsys.core.errors import DataError
from recsys.data.contract.file_names import (
    DELIMITERS,
    compression_of,
    ending_of,
    error_of_store,
    is_atomic,
    is_remote,
)
from recsys.data.contract.parquet_files import to_frame

_CSV_BLOCK_BYTES = 1 << 24


def _opened(path: Path) -> pa.NativeFile:
    """A text file, decompressed where it is compressed.

    Arrow takes a relative ``~`` for the home folder, and guesses a compression from the name.
    """
    if is_remote(path):
        return path.stream(compression_of(path))  # type: ignore[attr-defined]  # a `RemotePath`
    return pa.input_stream(str(path.absolute()), compression=compression_of(path))


@dataclass(frozen=True)
class _Top:
    """How a text file begins.

    Attributes:
        blank: lines before the header that are blank.
        header: the line with the names of columns, without the mark of the byte order.
        below: the line below it; empty where there is none.
    """

    blank: int
    header: bytes
    below: bytes


def _top(path: Path) -> _Top:
    blank = 0
    try:
        with io.BufferedReader(_opened(path)) as file:  # type: ignore[arg-type]
            line = file.readline()
            header = line.removeprefix(codecs.BOM_UTF8)
            while line and not header.strip():
                blank += 1
                line = header = file.readline()
            below = file.readline()
    except OSError as error:
        raise _not_compressed(path, error) from error
    if not header:
        raise DataError(f"{path} is empty; its first line should name the columns.")
    if b"\r" in header.removesuffix(b"\n").removesuffix(b"\r"):
        raise DataError(
            f"{path} has lines that end with a carriage return alone, as old Macs wrote them; "
            f"convert it, for example with `tr '\\r' '\\n' < {path.name} > unix_{path.name}`."
        )
    return _Top(blank, header, below)


def _delimiter(path: Path) -> str:
    """What separates the columns: in a .csv the commonest of the usual ones in the header.

    One that stands between quotes, or not in the line below, is part of a name.
    """
    usual = DELIMITERS[ending_of(path)]
    if usual != ",":
        return usual
    top = _top(path)
    names = re.sub(rb'"[^"]*"', b"", top.header)
    found = max(",;|\t", key=lambda one: names.count(one.encode()))  # of equal counts the first
    is_whole = top.below.strip() and top.below.count(b'"') % 2 == 0  # not a part of a row
    return "," if is_whole and found.encode() not in top.below else found


def csv_header(path: Path) -> list[str]:
    """The names in the header, empty ones among them."""
    line = _top(path).header
    try:
        names = next(csv.reader([line.decode()], delimiter=_delimiter(path)))
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except csv.Error as error:
        raise DataError(
            f"{path}, first line: it does not name columns ({error}); write the file again."
        ) from error
    if is_atomic(path):  # name:type
        return [name.rpartition(":")[0] or name for name in names]
    return names


def _not_compressed(path: Path, error: OSError) -> DataError:
    if (refused := error_of_store(path, error)) is not None:
        return refused
    if path.stat().st_size == 0:
        return DataError(f"{path} is empty (0 bytes); write the file again or remove it.")
    return DataError(
        f"{path} cannot be read ({str(error).splitlines()[0].rstrip('.')}); it was cut off, "
        "damaged, or is not compressed as its name says: copy or write it again."
    )


def _not_utf8(path: Path) -> DataError:
    return DataError(
        f"{path} is not UTF-8 text; convert it, for example with "
        f"`iconv -f latin1 -t utf-8 {path.name} > utf8_{path.name}`."
    )


def read_csv_rows(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Rows in pieces of 16 MB, every value as text."""
    present = csv_header(path)
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in present},
        include_columns=columns,
        null_values=[""],
        strings_can_be_null=True,
    )
    read = pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, skip_rows=_top(path).blank)
    if is_atomic(path):
        read.column_names, read.skip_rows = present, read.skip_rows + 1
    # a line break between quotes is no end of a row, where a block ends there too
    parse = pa.csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True)
    try:
        with (
            _opened(path) as file,
            pa.csv.open_csv(
                file,
                read_options=read,
                parse_options=parse,
                convert_options=convert,
            ) as reader,
        ):
            for batch in reader:
                yield to_frame(pa.Table.from_batches([batch]))
    except pa.ArrowException as error:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            raise _not_utf8(path) from error
        raise DataError(
            f"{path} is not a table of comma-separated values ({str(error).splitlines()[0]}); "
            "correct the line or write the file again."
        ) from error
    except OSError as error:
        raise _not_compressed(path, error) from error
