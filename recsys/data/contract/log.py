"""The interaction log: reading one in any allowed form, and telling good rows from bad ones.

A bad *file* (a missing column, a column of another kind, timestamps in seconds) is one sentence.
A bad *row* keeps its place among the others with a reason beside it, until ``split_rows`` sets it
apart; preparation counts it and writes it aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.files import (
    CSV_SUFFIXES,
    DEFAULT_CHUNK_ROWS,
    cast_or_refuse,
    data_files,
    read_chunks,
)
from recsys.data.contract.rejected import DETAIL, REASON, Misfits
from recsys.data.contract.schema import (
    ACTION_TYPES,
    ID_COLUMNS,
    IMPRESSION,
    LOG_SCHEMA,
    REQUIRED_LOG_COLUMNS,
    Column,
)

#: Milliseconds since 1970 lie here (1973 to 2286); seconds of any plausible year lie below.
FIRST_TIMESTAMP = 100_000_000_000
LAST_TIMESTAMP = 10_000_000_000_000
_FIRST_SECOND = FIRST_TIMESTAMP // 1_000

_NUMBER_SCHEMA = {
    name: dtype
    for name, dtype in LOG_SCHEMA.items()
    if dtype.is_numeric() and name not in ID_COLUMNS
} | {Column.REQUEST_TIME: pl.Int64()}


#: Here an empty string says no more than a null does; an id must not be empty.
_EMPTY_IS_UNKNOWN = (Column.AUTHOR, Column.TOPIC, Column.MEDIA_TYPE, Column.SURFACE)


@dataclass
class LogReader:
    """Reads a log in chunks with the columns of ``LOG_SCHEMA``, bad values marked, not dropped.

    Absent optional columns come as nulls, and so do their empty strings. An absent or null action
    type comes as ``impression``: that the item was shown is all such a row says. ``request_time``
    and the reason columns come along where they are needed. Ids keep their kind, integers or
    strings, which the first chunk decides; in a CSV file ids are integers where every id of the
    first chunk is written like one.

    Attributes:
        data: a Parquet or CSV file, a folder of them, or a polars frame.
        columns: column of the contract to the name it has in the log, where they differ.
        actions: action type of ``ACTION_TYPES`` to the name it has in the log, where they differ.
        chunk_rows: rows read at a time.
    """

    data: Path | pl.DataFrame | pl.LazyFrame
    columns: dict[str, str] = field(default_factory=dict)
    actions: dict[str, str] = field(default_factory=dict)
    chunk_rows: int = DEFAULT_CHUNK_ROWS
    _id_types: dict[str, pl.DataType] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        known = [*LOG_SCHEMA, Column.REQUEST_TIME]
        for name in self.columns:
            if name not in known:
                raise DataError(
                    f"columns: {name} is no column of the interaction log; "
                    f"the columns are {', '.join(known)}."
                )
        for action in self.actions:
            if action not in ACTION_TYPES:
                raise DataError(
                    f"actions: {action} is no known action type; "
                    f"the action types are {', '.join(ACTION_TYPES)}."
                )

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log.

        Raises:
            DataError: a file cannot be used.
        """
        num_rows = 0
        for where, chunk, is_text in self._raw_chunks():
            if chunk.height:
                num_rows += chunk.height
                yield self._conform(where, chunk, is_text)
        if num_rows == 0:
            where = str(self.data) if isinstance(self.data, Path) else "the frame"
            raise DataError(f"{where} holds no rows; give a log with at least one event.")

    def raw_chunks(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log as it is given."""
        for _, chunk, _ in self._raw_chunks():
            yield chunk

    def _raw_chunks(self) -> Iterator[tuple[str, pl.DataFrame, bool]]:
        if isinstance(self.data, pl.DataFrame):
            for chunk in self.data.iter_slices(self.chunk_rows):
                yield "the frame", chunk, False
        elif isinstance(self.data, pl.LazyFrame):
            for chunk in self.data.collect_batches(chunk_size=self.chunk_rows):
                yield "the frame", chunk, False
        else:
            for path in data_files(self.data):
                for chunk in read_chunks(path, chunk_rows=self.chunk_rows):
                    yield str(path), chunk, path.suffix.lower() in CSV_SUFFIXES

    def _conform(self, where: str, chunk: pl.DataFrame, is_text: bool) -> pl.DataFrame:
        """Give a chunk the contract's names and types; what does not fit gets a reason."""
        wanted = {
            name: self.columns.get(name, str(name)) for name in (*LOG_SCHEMA, Column.REQUEST_TIME)
        }
        renamed = (name for name, source in self.columns.items() if source != name)
        for name in (*REQUIRED_LOG_COLUMNS, *renamed):
            if wanted[name] not in chunk.columns:
                raise DataError(
                    f"{where} has no column {wanted[name]} (it has {', '.join(chunk.columns)}); "
                    f"add it, or say which column holds it: options.columns.{name}=<its name>."
                )
        columns: list[pl.Series] = []
        misfits = Misfits(chunk.height)
        for name, source in wanted.items():
            if source not in chunk.columns:
                if name != Column.REQUEST_TIME:
                    dtype = LOG_SCHEMA[name]
                    if name in ID_COLUMNS:
                        dtype = self._id_types.setdefault(name, dtype)
                    columns.append(pl.Series(name, [None] * chunk.height, dtype=dtype))
                continue
            raw = chunk[source]
            if name in _EMPTY_IS_UNKNOWN:
                raw = _without_empty(raw)
            typed = self._typed(where, name, raw, is_text).alias(name)
            misfits.note(name, raw, typed)
            columns.append(typed)
        frame = pl.DataFrame([*columns, *misfits.columns])
        known = {name: action for action, name in self.actions.items()}
        action = pl.col(Column.ACTION_TYPE).replace(known).fill_null(IMPRESSION)
        frame = frame.with_columns(action)
        _refuse_seconds(where, wanted[Column.TIMESTAMP], frame)
        return frame

    def _typed(self, where: str, name: str, raw: pl.Series, is_text: bool) -> pl.Series:
        if name in ID_COLUMNS:
            return self._typed_id(where, name, raw, is_text)
        if name in (Column.TIMESTAMP, Column.REQUEST_TIME) and raw.dtype.is_temporal():
            return raw.cast(pl.Datetime("ms")).cast(pl.Int64)
        dtype = _NUMBER_SCHEMA.get(name, pl.String())
        unit = " of milliseconds since 1970 (UTC)" if dtype == pl.Int64() else ""
        return cast_or_refuse(where, raw, dtype, unit)

    def _typed_id(self, where: str, name: str, raw: pl.Series, is_text: bool) -> pl.Series:
        if not (raw.dtype.is_integer() or raw.dtype in (pl.String, pl.Null, pl.Categorical)):
            raise DataError(
                f"{where}, column {raw.name}: ids are whole numbers or strings, found {raw.dtype}; "
                "convert the column."
            )
        if name not in self._id_types:
            as_number = raw.cast(pl.Int64, strict=False) if is_text else None
            # 007 is a name, 7 a number; a column without any value may become either
            written_alike = as_number is not None and (
                raw.null_count() < len(raw)
                and as_number.cast(pl.String).eq_missing(raw.cast(pl.String)).all()
            )
            is_number = raw.dtype.is_integer() or written_alike
            self._id_types[name] = pl.Int64() if is_number else pl.String()
        return raw.cast(self._id_types[name], strict=False)


def split_rows(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows, and bad rows with their reason.

    Args:
        frame: columns of ``LOG_SCHEMA``, where a reader found something the reason columns too.

    Returns:
        The rows that can be used, without reason columns and with NaN numbers as nulls, and the
        others with ``rejection_reason``.
    """
    if REASON not in frame.columns:
        frame = frame.with_columns(
            pl.lit(None, pl.String).alias(REASON), pl.lit(None, pl.String).alias(DETAIL)
        )
    numbers = [Column.DWELL_TIME, Column.VIDEO_DURATION]
    frame = frame.with_columns(pl.col(numbers).fill_nan(None))
    reason = pl.coalesce(pl.col(REASON), *_row_checks(frame.schema))
    frame = frame.with_columns(reason.alias(REASON))
    if frame[REASON].null_count() == frame.height:
        return frame.drop(REASON, DETAIL), frame.clear()
    good = pl.col(REASON).is_null()
    return frame.filter(good).drop(REASON, DETAIL), frame.filter(~good)


def _row_checks(schema: pl.Schema) -> list[pl.Expr]:
    """One expression per check: the reason as a string where the row fails, else null."""
    timestamp = pl.col(Column.TIMESTAMP)
    failures: list[tuple[pl.Expr, str]] = [
        (pl.col(name).is_null(), f"{name} is null") for name in REQUIRED_LOG_COLUMNS
    ]
    failures += [
        (pl.col(name) == "", f"{name} is empty")
        for name in (Column.USER, Column.ITEM)
        if schema[name] == pl.String()
    ]
    failures += [
        (timestamp.is_between(_FIRST_SECOND, FIRST_TIMESTAMP - 1), "timestamp is in seconds"),
        (~timestamp.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1), "timestamp is out of range"),
        (~pl.col(Column.ACTION_TYPE).is_in(ACTION_TYPES), "action_type is unknown"),
    ]
    for name in (Column.DWELL_TIME, Column.VIDEO_DURATION):
        failures.append((pl.col(name) < 0, f"{name} is negative"))
        failures.append((pl.col(name).is_infinite(), f"{name} is infinite"))
    if Column.REQUEST_TIME in schema:
        late = pl.col(Column.REQUEST_TIME) > timestamp
        failures.append((late, "request_time is after the event"))
    return [pl.when(failed).then(pl.lit(reason)) for failed, reason in failures]


def _without_empty(raw: pl.Series) -> pl.Series:
    if raw.dtype not in (pl.String, pl.Categorical):
        return raw
    return raw.to_frame().select(pl.when(pl.first() != "").then(pl.first())).to_series()


def _refuse_seconds(where: str, column: str, frame: pl.DataFrame) -> None:
    timestamps = frame[Column.TIMESTAMP].drop_nulls()
    in_seconds = timestamps.is_between(_FIRST_SECOND, FIRST_TIMESTAMP - 1).sum()
    if 2 * in_seconds > len(timestamps):
        raise DataError(
            f"{where}, column {column}: values such as {timestamps[0]} look like seconds; "
            "expected milliseconds since 1970 (UTC): multiply the column by 1000."
        )
