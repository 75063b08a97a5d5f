"""Tables that a user gives beside a log: users, pairs, items, histories; read whole.

They may be Parquet, CSV, TSV or JSON Lines, or a frame, and may name their columns as the log did.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.file_names import data_files
from recsys.data.contract.files import column_names, read_chunks
from recsys.data.contract.ids import as_ids, checked_ids, is_text
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.moments import to_milliseconds
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, ISO, LAST_TIMESTAMP, TimeFormat

#: Numbers of seconds or of less, as text; shorter ones are dates without hyphens.
_NUMBER_OF_TIME = r"^\s*\d{9,}(\.\d*)?\s*$"

JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})


def read_given(path: Path | str, setting: str, may_be_empty: bool = False) -> pl.DataFrame:
    """A table with the types of its file; a CSV file's columns are all text.

    Args:
        path: a file, or a folder of Parquet and CSV files.
        setting: the key that has this value, for the sentence.
        may_be_empty: a file with names of columns alone is a table without rows.

    Raises:
        DataError: there is no such file, it is damaged, or it has no row.
    """
    place = Path(path)
    if place.suffix.lower() in JSON_LINES_SUFFIXES and place.is_file():
        tables = [_read_json_lines(place)]
    else:
        files = data_files(place, setting)
        tables = [chunk for file in files for chunk in read_chunks(file)]
        if may_be_empty and not tables:
            return pl.DataFrame(schema=dict.fromkeys(column_names(files[0]), pl.String()))
    tables = [table for table in tables if table.height]
    if not tables:
        raise DataError(f"{path} has no row; give {setting}= a file with at least one.")
    return pl.concat(_of_one_type(tables), how="diagonal")


def named_column(
    present: Sequence[str], name: str, manifest: DatasetManifest | None = None
) -> str | None:
    """The column of a table that holds ``name``: called so, or as in the log; None without one.

    Args:
        present: the names of the table's columns.
        name: of the contract: ``user_id``.
        manifest: of the data set, which notes what the log calls it.
    """
    own = own_name(name, manifest)
    return next((one for one in (name, own) if one in present), None)


def own_name(name: str, manifest: DatasetManifest | None) -> str:
    """What the log of a data set calls a column of the contract."""
    options: dict[str, Any] = {} if manifest is None else manifest.preparation.get("options", {})
    return str((options.get("columns") or {}).get(name) or name)


def needed_column(
    where: str, present: Sequence[str], name: str, manifest: DatasetManifest | None = None
) -> str:
    """As ``named_column``, where there must be one.

    Raises:
        DataError: there is none.
    """
    found = named_column(present, name, manifest)
    if found is None:
        own = own_name(name, manifest)
        also = "" if own == name else f" or {own}, as in the log"
        raise DataError(
            f"{where} has no column {name} (it has {', '.join(present)}); name the column so{also}."
        )
    return found


def given_ids(
    where: str, table: pl.DataFrame, name: str, manifest: DatasetManifest | None = None
) -> pl.Series:
    """A table's column of ids, called ``name``.

    Raises:
        DataError: there is no such column, or it holds no ids.
    """
    column = table[needed_column(where, table.columns, name, manifest)]
    return checked_ids(where, column).alias(name)


def log_times(where: str, column: pl.Series, manifest: DatasetManifest) -> pl.Series:
    """A column of times in ms, written as in the log, or as moments are: null where it is null.

    Texts that are no numbers are ISO 8601, in the log's time zone where they name none.

    Raises:
        DataError: values are no times.
        ConfigError: a text names no moment.
    """
    options = manifest.preparation.get("options", {})
    times = TimeFormat(options.get("time_unit") or "ms", options.get("time_zone") or "UTC")
    if times.unit == ISO and column.dtype.is_numeric():
        times = TimeFormat("ms", times.zone)
    if is_text(column.dtype) and times.unit != ISO:
        texts = column.cast(pl.String)
        if not texts.drop_nulls().str.contains(_NUMBER_OF_TIME).all():
            return _moments_in(where, texts, ZoneInfo(times.zone))
    try:
        found = times.milliseconds(where, column)
    except DataError:  # it names a setting that only preparing has
        found = pl.repeat(None, len(column), dtype=pl.Int64, eager=True)
    is_time = found.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1).fill_null(False)
    wrong = column.filter(column.is_not_null() & ~is_time)
    if len(wrong):
        raise DataError(
            f"{where}, column {column.name}: {len(wrong)} of {len(column)} values are no times as "
            f"the log has them ({times.unit}), such as {wrong[0]!s}; write them so, as datetimes "
            "or as ISO 8601 text."
        )
    return found


def _moments_in(where: str, texts: pl.Series, zone: ZoneInfo) -> pl.Series:
    place = f"{where}, column {texts.name}"
    given = texts.unique().drop_nulls().to_list()
    known = {text: to_milliseconds(place, text.strip(), zone) for text in given}
    return texts.replace_strict(known, default=None, return_dtype=pl.Int64)


def in_type_of(ids: pl.Series, log: pl.DataType) -> pl.Series:
    """Ids in the type that the log has them in; as they are where one is not written like that."""
    typed = as_ids(ids, log)
    return typed if typed.null_count() == ids.null_count() else ids.cast(pl.String)


def others(present: Sequence[str], used: Collection[str | None]) -> list[str]:
    """Columns of a table that are not among those used."""
    return [name for name in present if name not in used]


def _read_json_lines(path: Path) -> pl.DataFrame:
    try:
        with path.open("rb") as file:
            return pl.read_ndjson(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise DataError(
            f"{path} is not JSON Lines, an object of the same names per line "
            f"({str(error).splitlines()[0]}); write the file again."
        ) from error


def _of_one_type(tables: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """Tables whose columns of one name have one type: numbers if all are, else text."""
    types: dict[str, set[pl.DataType]] = {}
    for table in tables:
        for name, dtype in table.schema.items():
            types.setdefault(name, set()).add(dtype)
    wanted = {name: _common(name, several) for name, several in types.items() if len(several) > 1}
    return [
        table.with_columns(pl.col(n).cast(wanted[n]) for n in table.columns if n in wanted)
        for table in tables
    ]


def _common(name: str, types: set[pl.DataType]) -> pl.DataType:
    """The type of a column of which files have several; whole numbers stay exact as text."""
    if all(one.is_integer() for one in types):
        return pl.Int128()
    if any(one.is_float() for one in types):
        if not all(one.is_numeric() for one in types):
            raise DataError(
                f"the column {name} is of numbers with fractions in one file and of text in "
                "another (as all columns of CSV files are); write the files alike."
            )
        return pl.Float64()
    return pl.String()
