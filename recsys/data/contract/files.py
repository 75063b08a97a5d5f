"""Reading tables in chunks, whatever their form; a file that cannot be read is one sentence.

A table is a Parquet file, a CSV or TSV file, also compressed by gzip or zstd, an atomic file of
RecBole (``.inter``, ``.item``, ``.user``: tabs, and columns named ``user_id:token``), or a folder
of such files. In a folder ``date=2024-05-01`` every file has the column ``date`` too, as Hive lays
them out. What lies at a URL is read piece by piece as what lies on the disk.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.core.errors import DataError
from recsys.data.contract.parquet import open_parquet

DEFAULT_CHUNK_ROWS = 500_000
#: What a table may end in, for sentences.
FORMS = "Parquet (.parquet), CSV (.csv, .tsv, also with .gz or .zst behind it) or RecBole (.inter)"

#: Stands between the values of a list that is written as text.
LIST_SEPARATOR = "|"

_PARQUET_ENDINGS = frozenset({".parquet", ".pq"})
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
#: Atomic files of RecBole; a folder of them holds different tables.
_ATOMIC = (".inter", ".item", ".user")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
#: How Hive writes a partition whose value is null.
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

_CSV_BLOCK_BYTES = 1 << 24


def data_files(path: Path, setting: str = "path") -> list[Path]:
    """The data files behind ``path``: the file itself, or those of a folder in name order.

    Of RecBole's atomic files a folder is read for those of the setting: ``.item`` for one whose
    name has ``items`` or ``posts`` in it, ``.user`` for ``users``, ``.inter`` for any other.

    Args:
        path: a file or a folder.
        setting: the key that has this value, for the sentence.

    Raises:
        DataError: there is nothing there, or nothing that is a table.
    """
    if path.is_file():
        if not is_data_file(path):
            raise DataError(f"{path} is not {FORMS}; give a file with one of these endings.")
        return [path]
    if not path.is_dir():
        looked_for = ""
        # of a log alone: other files are where their key says, and so is what has a URL
        if setting == "path" and not _is_remote(path):
            looked_for = (
                " It is looked for from the current folder, then below data_dir=, else "
                "RECSYS_DATA_DIR, else ./data."
            )
        raise DataError(
            f"{path} does not exist; give {setting}= a Parquet or CSV file or a folder.{looked_for}"
        )
    others = {ending for ending in _ATOMIC if ending != _atomic_ending(setting)}
    files = sorted(
        file for file in path.rglob("*") if is_data_file(file) and _ending(file) not in others
    )
    if not files:
        raise DataError(f"{path} holds no file of {FORMS}; give {setting}= another folder.")
    return files


def is_data_file(path: Path) -> bool:
    """Whether a path is a file that ends as a table does."""
    ends = _ending(path) in _PARQUET_ENDINGS | _DELIMITERS.keys()
    return ends and not (is_parquet(path) and _compression(path)) and path.is_file()


def column_names(path: Path) -> list[str]:
    """The columns a file has, those of its folders' names behind its own.

    A column whose name is empty, as pandas writes its index, is none.

    Raises:
        DataError: the file is empty, damaged, or names no column.
    """
    own = _own_columns(path)
    return own + [name for name in partition_values(path) if name not in own]


def column_types(path: Path) -> dict[str, pl.DataType]:
    """The types of a file's columns: of a CSV file all text.

    Raises:
        DataError: as ``column_names``.
    """
    types: dict[str, pl.DataType] = {}
    if is_parquet(path):
        for field in _open_parquet(path).schema_arrow:  # one by one: names may stand there twice
            if not field.name:
                continue
            types |= _to_frame(pa.schema([field]).empty_table()).schema
    return types | {name: pl.String() for name in column_names(path) if name not in types}


def partition_values(path: Path) -> dict[str, str | None]:
    """What the names of the folders above a file say: ``date=2024-05-01`` gives it a column.

    Only folders right above each other that all have such names count.
    """
    values: dict[str, str | None] = {}
    for folder in path.parents:
        key, equals, value = folder.name.partition("=")
        if not key or not equals:
            break
        values = {unquote(key): None if value == _NO_VALUE else unquote(value)} | values
    return values


def list_separator(path: Path) -> str:
    """What stands between the values of a list that a file writes as text: blanks in RecBole's."""
    return " " if _ending(path) in _ATOMIC else LIST_SEPARATOR


def is_parquet(path: Path) -> bool:
    """Whether a file that ``data_files`` found is Parquet; otherwise it is text."""
    return _ending(path) in _PARQUET_ENDINGS


def refuse_repeated(path: Path, present: Sequence[str], columns: Iterable[str]) -> None:
    """Refuse a file in which a column that is to be read stands more than once.

    Args:
        path: the file, for the sentence.
        present: the names of its columns.
        columns: those that are to be read.

    Raises:
        DataError: one of them is there twice.
    """
    for name in columns:
        if present.count(name) > 1:
            raise DataError(
                f"{path} has {present.count(name)} columns named {name}, and which is meant "
                "cannot be told; keep one, or give the others names of their own."
            )


def read_chunks(
    path: Path,
    columns: Iterable[str] | None = None,
    chunk_rows: int = DEFAULT_CHUNK_ROWS,
    rows: tuple[int, int] | None = None,
) -> Iterator[pl.DataFrame]:
    """Read a file piece by piece.

    Args:
        path: a Parquet file, whose types are kept, or a CSV file, whose columns all come as
            strings (an empty field is null): what a column should be, the caller knows. Columns
            of folders' names are text.
        columns: columns to read; all with a name that the file itself has where ``None``.
        chunk_rows: rows per piece of a Parquet file; CSV comes in pieces of 16 MB.
        rows: the first of these and the one behind the last, of a Parquet file; None for all.

    Raises:
        DataError: the file is empty, damaged, not UTF-8, or lacks a column.
    """
    own = _own_columns(path)
    wanted = own if columns is None else list(columns)
    of_folders = {n: value for n, value in partition_values(path).items() if n not in own}
    for name in wanted:
        if name not in own and name not in of_folders:
            raise DataError(
                f"{path} has no column {name} (it has {', '.join([*own, *of_folders])}); "
                "add the column or name the one that holds it."
            )
    refuse_repeated(path, own, wanted)
    # of a file of which nothing is wanted the number of rows is
    read = [name for name in wanted if name in own] or own[:1]
    if is_parquet(path):
        chunks = _read_parquet(path, read, chunk_rows, rows)
    else:
        chunks = _read_csv(path, read)
    for chunk in chunks:
        named = (pl.lit(value, pl.String).alias(name) for name, value in of_folders.items())
        yield chunk.with_columns(named).select(wanted) if of_folders else chunk.select(wanted)


def read_table(path: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Read columns of a whole file that fits into memory, in the given types.

    Raises:
        DataError: as ``read_chunks``, and where a value does not fit its type.
    """
    chunks = list(read_chunks(path, schema))
    if not chunks:
        return pl.DataFrame(schema=schema)
    table = pl.concat(chunks)
    for name, dtype in schema.items():
        typed = cast_column(table[name], dtype)
        if typed.null_count() > table[name].null_count():
            bad = table[name].filter(typed.is_null() & table[name].is_not_null())[0]
            raise DataError(
                f"{path}, column {name}: {bad!r} is not {describe_type(dtype)}; correct the file "
                "or fetch it again from its owners."
            )
        table = table.with_columns(typed)
    return table


def cast_column(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Cast, with null where a value does not fit; text like ``12.0`` is a whole number."""
    if column.dtype == pl.String() and dtype.is_integer():
        whole = column.cast(dtype, strict=False)
        if whole.null_count() == column.null_count():
            return whole
        number = column.cast(pl.Float64(), strict=False)
        floored = pl.select(pl.when(number == number.floor()).then(number)).to_series()
        return whole.fill_null(floored.cast(dtype, strict=False)).alias(column.name)
    return column.cast(dtype, strict=False)


def cast_or_refuse(where: str, column: pl.Series, dtype: pl.DataType, unit: str = "") -> pl.Series:
    """Cast like ``cast_column``, but a column of another kind altogether is one sentence.

    Args:
        where: the file, for the sentence.
        column: of text, numbers or nulls.
        dtype: what it should be.
        unit: of its values, for the sentence, for example ``" of seconds"``.

    Raises:
        DataError: more than half of the values do not fit.
    """
    castable = column.dtype.is_numeric() or column.dtype in (pl.String(), pl.Null())
    castable |= dtype == pl.String() and column.dtype in (pl.Categorical, pl.Enum)
    typed = (
        cast_column(column, dtype)
        if castable
        else pl.repeat(None, len(column), dtype=dtype, eager=True).alias(column.name)
    )
    misfits = typed.null_count() - column.null_count()
    if 2 * misfits > len(column) - column.null_count():
        example = column.filter(typed.is_null() & column.is_not_null())[0]
        raise DataError(
            f"{where}, column {column.name}: expected {describe_type(dtype)}{unit}, found "
            f"{column.dtype} values such as {example!r}; convert the column."
        )
    return typed


def describe_type(dtype: pl.DataType) -> str:
    """A type in words."""
    if dtype.is_integer():
        return "a whole number"
    return "a number" if dtype.is_numeric() else f"of type {dtype}"


def _open_parquet(path: Path) -> pq.ParquetFile:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); write the file again or remove it.")
    try:
        return open_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged_parquet(path, error) from error


def _damaged_parquet(path: Path, error: Exception) -> DataError:
    if (refused := _of_store(path, error)) is not None:
        return refused
    return DataError(
        f"{path} is not a complete Parquet file ({str(error).splitlines()[0].rstrip('.')}); "
        "it was cut off or damaged: copy or write it again."
    )


def _is_remote(path: Path) -> bool:
    """Whether it is a `RemotePath`: in no other path two slashes follow each other."""
    return "://" in str(path)


def _of_store(path: Path, error: Exception) -> DataError | None:
    """The sentence for an error that is of the store where a file lies, and not the file's."""
    if not _is_remote(path):
        return None
    from recsys.core.location import is_of_store, store_error  # which few need

    return store_error(path, error) if is_of_store(error) else None


def num_rows(path: Path) -> int | None:
    """How many rows a Parquet file has; None of other files, which do not say.

    Raises:
        DataError: it is empty or damaged.
    """
    if not is_parquet(path):
        return None
    with _open_parquet(path) as file:
        rows: int = file.metadata.num_rows
        return rows


def _read_parquet(
    path: Path, columns: list[str], chunk_rows: int, rows: tuple[int, int] | None
) -> Iterator[pl.DataFrame]:
    with _open_parquet(path) as file:
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
        yield _to_frame(pa.Table.from_batches([batch]))


def _to_frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _own_columns(path: Path) -> list[str]:
    """The columns of the file itself that have a name."""
    names = _open_parquet(path).schema_arrow.names if is_parquet(path) else _csv_header(path)
    named = [name for name in names if name]
    if names and not named:
        raise DataError(f"{path} names none of its columns; write the file again with names.")
    return named


def _ending(path: Path) -> str:
    """The ending that says what a file is, without that of its compression."""
    name = path.with_suffix("") if _compression(path) else path
    return name.suffix.lower()


def _compression(path: Path) -> str | None:
    return _COMPRESSIONS.get(path.suffix.lower())


def _atomic_ending(setting: str) -> str:
    words = setting.split(".")
    if "users" in words:
        return ".user"
    return ".item" if {"items", "posts"}.intersection(words) else ".inter"


def _opened(path: Path) -> pa.NativeFile:
    """A text file, decompressed where it is compressed.

    Arrow takes a relative ``~`` for the home folder, and guesses a compression from the name.
    """
    if _is_remote(path):
        return path.stream(_compression(path))  # type: ignore[attr-defined]  # a `RemotePath`
    return pa.input_stream(str(path.absolute()), compression=_compression(path))


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
    usual = _DELIMITERS[_ending(path)]
    if usual != ",":
        return usual
    top = _top(path)
    names = re.sub(rb'"[^"]*"', b"", top.header)
    found = max(",;|\t", key=lambda one: names.count(one.encode()))  # of equal counts the first
    is_whole = top.below.strip() and top.below.count(b'"') % 2 == 0  # not a part of a row
    return "," if is_whole and found.encode() not in top.below else found


def _csv_header(path: Path) -> list[str]:
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
    if _ending(path) in _ATOMIC:  # name:type
        return [name.rpartition(":")[0] or name for name in names]
    return names


def _not_compressed(path: Path, error: OSError) -> DataError:
    if (refused := _of_store(path, error)) is not None:
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


def _read_csv(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    present = _csv_header(path)
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in present},
        include_columns=columns,
        null_values=[""],
        strings_can_be_null=True,
    )
    read = pa.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES, skip_rows=_top(path).blank)
    if _ending(path) in _ATOMIC:
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
                yield _to_frame(pa.Table.from_batches([batch]))
    except pa.ArrowException as error:
        if "UTF8" in str(error) or "UTF-8" in str(error):
            raise _not_utf8(path) from error
        raise DataError(
            f"{path} is not a table of comma-separated values ({str(error).splitlines()[0]}); "
            "correct the line or write the file again."
        ) from error
    except OSError as error:
        raise _not_compressed(path, error) from error
