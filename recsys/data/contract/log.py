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
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS, cast_or_refuse
from recsys.data.contract.ids import as_ids, is_text
from recsys.data.contract.log_parts import LogPart, id_types, log_parts
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
_COLUMNS = (*LOG_SCHEMA, Column.REQUEST_TIME)

#: Here an empty string says no more than a null does; an id must not be empty.
_EMPTY_IS_UNKNOWN = (Column.AUTHOR, Column.TOPIC, Column.MEDIA_TYPE, Column.SURFACE)


@dataclass
class LogReader:
    """Reads a log in chunks with the columns of ``LOG_SCHEMA``, bad values marked, not dropped.

    Absent optional columns come as nulls, and so do their empty strings. An absent or null action
    type comes as ``impression``: that the item was shown is all such a row says. ``request_time``
    and the reason columns come along where they are needed. Ids of a column are of one type,
    numbers or text, settled over the whole log before its first row: every id stays as it is
    written (``id_types``).

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

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in _COLUMNS:
                raise DataError(
                    f"columns: {name} is no column of the interaction log; "
                    f"the columns are {', '.join(_COLUMNS)}."
                )
        for action in self.actions:
            if action not in ACTION_TYPES:
                raise DataError(
                    f"actions: {action} is no known action type; "
                    f"the action types are {', '.join(ACTION_TYPES)}."
                )
        _refuse_one_for_two("columns", self._sources)
        _refuse_one_for_two(
            "actions", {name: self.actions.get(name, name) for name in ACTION_TYPES}
        )

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log.

        Raises:
            DataError: a file cannot be used.
        """
        parts = log_parts(self.data, self.chunk_rows)
        for part in parts:
            self._refuse_absent(part)
        types = id_types(parts, [self._sources[name] for name in ID_COLUMNS])
        requested = any(self._sources[Column.REQUEST_TIME] in part.types for part in parts)
        num_rows = 0
        for part in parts:
            present = [source for source in self._sources.values() if source in part.types]
            for chunk in part.chunks(present):
                if chunk.height:
                    num_rows += chunk.height
                    yield self._conform(part, chunk, types, requested)
        if num_rows == 0:
            where = str(self.data) if isinstance(self.data, Path) else "the frame"
            raise DataError(f"{where} holds no rows; give a log with at least one event.")

    def raw_chunks(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log as it is given."""
        for part in log_parts(self.data, self.chunk_rows):
            yield from part.chunks(list(part.types))

    @property
    def _sources(self) -> dict[str, str]:
        """Column of the contract to its name in the log."""
        return {name: self.columns.get(name, name) for name in _COLUMNS}

    def _refuse_absent(self, part: LogPart) -> None:
        renamed = (name for name, source in self.columns.items() if source != name)
        for name in (*REQUIRED_LOG_COLUMNS, *renamed):
            if self._sources[name] not in part.types:
                raise DataError(
                    f"{part.where} has no column {self._sources[name]} (it has "
                    f"{', '.join(part.types)}); add it, or say which column holds it: "
                    f"options.columns.{name}=<its name>."
                )

    def _conform(
        self,
        part: LogPart,
        chunk: pl.DataFrame,
        types: dict[str, pl.DataType],
        requested: bool,
    ) -> pl.DataFrame:
        """Give a chunk the contract's names and types; what does not fit gets a reason."""
        columns: list[pl.Series] = []
        misfits = Misfits(chunk.height)
        for name, source in self._sources.items():
            if source not in chunk.columns:
                if name == Column.REQUEST_TIME and requested:  # another file has it
                    columns += [one.alias(name) for one in columns if one.name == Column.TIMESTAMP]
                if name != Column.REQUEST_TIME:
                    dtype = types[source] if name in ID_COLUMNS else LOG_SCHEMA[name]
                    columns.append(pl.Series(name, [None] * chunk.height, dtype=dtype))
                continue
            raw = chunk[source]
            if name in _EMPTY_IS_UNKNOWN:
                raw = _without_empty(raw)
            if name in ID_COLUMNS:
                typed = as_ids(raw, types[source]).alias(name)
            else:
                typed = _typed(part.where, name, raw).alias(name)
            misfits.note(name, raw, typed)
            columns.append(typed)
        frame = pl.DataFrame([*columns, *misfits.columns])
        known = {name: action for action, name in self.actions.items()}
        action = pl.col(Column.ACTION_TYPE).replace(known).fill_null(IMPRESSION)
        frame = frame.with_columns(action)
        _refuse_seconds(part.where, self._sources[Column.TIMESTAMP], frame)
        return frame


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


def _typed(where: str, name: str, raw: pl.Series) -> pl.Series:
    """A column that holds no ids in its type of the contract, null where a value does not fit."""
    if name in (Column.TIMESTAMP, Column.REQUEST_TIME) and raw.dtype.is_temporal():
        if raw.dtype in (pl.Time, pl.Duration):
            raise DataError(
                f"{where}, column {raw.name}: found {raw.dtype} values, which name no day; "
                "expected datetimes, or milliseconds since 1970 (UTC): add the day to them."
            )
        return raw.cast(pl.Datetime("ms")).cast(pl.Int64)
    dtype = _NUMBER_SCHEMA.get(name, pl.String())
    unit = " of milliseconds since 1970 (UTC)" if dtype == pl.Int64() else ""
    return cast_or_refuse(where, raw, dtype, unit)


def _refuse_one_for_two(setting: str, sources: dict[str, str]) -> None:
    """Refuse a name of the log that would stand for two of ours."""
    first: dict[str, str] = {}
    for ours, theirs in sources.items():
        if first.setdefault(theirs, ours) != ours:
            raise DataError(
                f"options.{setting}: {theirs} of the log would be both {first[theirs]} and {ours}; "
                "name another for one of the two."
            )


def _without_empty(raw: pl.Series) -> pl.Series:
    if not is_text(raw.dtype):
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
