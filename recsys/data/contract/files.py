"""Reading tables in chunks, whatever their form; a file that cannot be read is one sentence.

A table is a Parquet file, a CSV or TSV file, also compressed by gzip or zstd, an atomic file of
RecBole (``.inter``, ``.item``, ``.user``: tabs, and columns named ``user_id:token``), or a folder
of such files. In a folder ``date=2024-05-01`` every file has the column ``date`` too, as Hive lays
them out. What lies at a URL is read piece by piece as what lies on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.file_names import is_parquet, partition_values

DEFAULT_CHUNK_ROWS = 500_000


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
        from recsys.data.contract.parquet_files import schema_of  # of this form alone

        types = schema_of(path)
    return types | {name: pl.String() for name in column_names(path) if name not in types}


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
    for chunk in _rows(path, read, chunk_rows, rows):
        named = (pl.lit(value, pl.String).alias(name) for name, value in of_folders.items())
        yield chunk.with_columns(named).select(wanted) if of_folders else chunk.select(wanted)


def num_rows(path: Path) -> int | None:
    """How many rows a Parquet file has; None of other files, which do not say.

    Raises:
        DataError: it is empty or damaged.
    """
    if not is_parquet(path):
        return None
    from recsys.data.contract.parquet_files import open_table

    with open_table(path) as file:
        rows: int = file.metadata.num_rows
        return rows


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


def _own_columns(path: Path) -> list[str]:
    """The columns of the file itself that have a name."""
    if is_parquet(path):
        from recsys.data.contract.parquet_files import open_table

        names = open_table(path).schema_arrow.names
    else:
        from recsys.data.contract.csv_files import csv_header

        names = csv_header(path)
    named = [name for name in names if name]
    if names and not named:
        raise DataError(f"{path} names none of its columns; write the file again with names.")
    return named


def _rows(
    path: Path, columns: list[str], chunk_rows: int, rows: tuple[int, int] | None
) -> Iterator[pl.DataFrame]:
    if is_parquet(path):
        from recsys.data.contract.parquet_files import read_parquet_rows

        return read_parquet_rows(path, columns, chunk_rows, rows)
    from recsys.data.contract.csv_files import read_csv_rows

    return read_csv_rows(path, columns)
