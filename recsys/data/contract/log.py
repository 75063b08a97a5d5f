"""The interaction log: reading one in any allowed form, and telling good rows from bad ones.

A bad *file* (a missing column, a column of another kind, timestamps in another unit) is one
sentence. A bad *row* keeps its place among the others with a reason beside it, until
``split_rows`` sets it apart; preparation counts it and writes it aside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.actions import UNKNOWN_ACTION, ActionNames
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS, cast_or_refuse
from recsys.data.contract.ids import as_ids, is_text
from recsys.data.contract.log_parts import (
    LogData,
    LogPart,
    id_types,
    log_parts,
    name_of,
    parts_of,
)
from recsys.data.contract.rejected import DETAIL, REASON, Misfits
from recsys.data.contract.schema import (
    ACTION_TYPES,
    ID_COLUMNS,
    LOG_SCHEMA,
    REQUIRED_LOG_COLUMNS,
    Column,
)
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP, TimeFormat

_FIRST_SECOND = FIRST_TIMESTAMP // 1_000

_NUMBER_SCHEMA = {name: dtype for name, dtype in LOG_SCHEMA.items() if dtype.is_float()}
_TIMES = (Column.TIMESTAMP, Column.REQUEST_TIME)
_COLUMNS = (*LOG_SCHEMA, Column.REQUEST_TIME)

_ROW = "row"

#: Here an empty string says no more than a null does; an id must not be empty.
_EMPTY_IS_UNKNOWN = (Column.AUTHOR, Column.TOPIC, Column.MEDIA_TYPE, Column.SURFACE)


@dataclass(frozen=True)
class LogBlock:
    """A piece of a log, with what was settled over the whole of it.

    Attributes:
        part: what is read.
        types: of the columns of ids.
        requested: whether any part says when something was requested.
    """

    part: LogPart
    types: dict[str, pl.DataType]
    requested: bool


@dataclass
class LogReader:
    """Reads a log in chunks with the columns of ``LOG_SCHEMA``, bad values marked, not dropped.

    Absent optional columns come as nulls, and so do their empty strings. An absent or null action
    type comes as the default of ``actions``, by itself ``impression``: that the item was shown is
    all such a row says. ``request_time`` and the reason columns come along where they are needed.
    Ids of a column are of one type, numbers or text, settled over the whole log before its first
    row: every id stays as it is written (``id_types``).

    Attributes:
        data: a Parquet or CSV file, a folder of them, or a polars frame.
        columns: column of the contract to the name it has in the log, where they differ; None for
            a log without ``timestamp``, whose rows are one millisecond apart in their order.
        actions: what the names of its actions mean.
        times: how it writes times.
        chunk_rows: rows read at a time.
        flags: columns of 0 and 1, or of true and false, that each say whether an action happened on
            the row's item; such an action is an event beside the row's own, named as the column.
    """

    data: LogData
    columns: Mapping[str, str | None] = field(default_factory=dict)
    actions: ActionNames = field(default_factory=lambda: ActionNames({}))
    times: TimeFormat = field(default_factory=TimeFormat)
    chunk_rows: int = DEFAULT_CHUNK_ROWS
    flags: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in _COLUMNS:
                raise DataError(
                    f"columns: {name} is no column of the interaction log; "
                    f"the columns are {', '.join(_COLUMNS)}."
                )
            if self.columns[name] is None and name in (Column.USER, Column.ITEM):
                raise DataError(f"columns: {name} is null; name the column that holds it.")
        _refuse_one_for_two(self._sources)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log.

        Raises:
            DataError: a file cannot be used.
        """
        num_rows = 0
        for block in self._whole():
            for chunk in self._raw(block):
                yield self._conform(block, chunk, num_rows)
                num_rows += chunk.height
        if num_rows == 0:
            raise DataError(
                f"{name_of(self.data)} holds no rows; give a log with at least one event."
            )

    def blocks(self, rows: int) -> list[LogBlock]:
        """The log in pieces that :meth:`read` reads apart, in its order; of files only.

        A Parquet file is divided, one of another form is a piece.

        Args:
            rows: of a piece, about: it consists of whole chunks.

        Raises:
            DataError: a file cannot be used.
        """
        assert isinstance(self.data, Path)
        step = max(1, rows // self.chunk_rows) * self.chunk_rows
        return [
            replace(block, part=part)
            for block in self._whole()
            for part in parts_of(block.part, self.chunk_rows, step)
        ]

    def read(self, block: LogBlock) -> Iterator[pl.DataFrame]:
        """The chunks of a piece of a log that has times, as iteration gives them."""
        for chunk in self._raw(block):
            yield self._conform(block, chunk, 0)

    def _whole(self) -> list[LogBlock]:
        """A block for each part of the log."""
        parts = log_parts(self.data, self.chunk_rows)
        for part in parts:
            self._refuse_absent(part)
        ids = {name: self._sources[name] for name in ID_COLUMNS if name in self._sources}
        found = id_types(parts, ids.values())
        types = {name: found[ids[name]] if name in ids else pl.Int64() for name in ID_COLUMNS}
        requested = any(self._sources.get(Column.REQUEST_TIME) in part.types for part in parts)
        return [LogBlock(part, types, requested) for part in parts]

    def _raw(self, block: LogBlock) -> Iterator[pl.DataFrame]:
        present = [source for source in self._sources.values() if source in block.part.types]
        for chunk in block.part.chunks(list(dict.fromkeys((*present, *self.flags)))):
            if chunk.height:
                yield chunk

    def raw_chunks(self) -> Iterator[pl.DataFrame]:
        """Chunks of the log as it is given."""
        for part in log_parts(self.data, self.chunk_rows):
            yield from part.chunks(list(part.types))

    def columns_found(self) -> set[str]:
        """Columns of the contract that any part of the log has, of which the first piece is read.

        Raises:
            DataError: a file cannot be used.
        """
        found: set[str] = set()
        parts = log_parts(self.data, self.chunk_rows)
        for part in parts:
            self._refuse_absent(part)
            found |= {name for name, source in self._sources.items() if source in part.types}
        present = [source for source in self._sources.values() if source in parts[0].types]
        next(parts[0].chunks(present), None)
        return found

    @property
    def _sources(self) -> dict[str, str]:
        """Column of the contract to its name in the log; without those it is said not to have."""
        named = ((name, self.columns.get(name, name)) for name in _COLUMNS)
        return {name: source for name, source in named if source is not None}

    def _refuse_absent(self, part: LogPart) -> None:
        renamed = (name for name, source in self.columns.items() if source != name)
        for name in (*REQUIRED_LOG_COLUMNS, *renamed):
            if name in self._sources and self._sources[name] not in part.types:
                raise DataError(
                    f"{part.where} has no column {self._sources[name]} (it has "
                    f"{', '.join(part.types)}); add it, or say which column holds it: "
                    f"options.columns.{name}=<its name>."
                )
        for name in self.flags:
            if name not in part.types:
                raise DataError(
                    f"{part.where} has no column {name} (it has {', '.join(part.types)}); "
                    "options.flags names columns of 0 and 1."
                )

    def _conform(self, block: LogBlock, chunk: pl.DataFrame, first_row: int) -> pl.DataFrame:
        """Give a chunk the contract's names and types; what does not fit gets a reason."""
        part, types = block.part, block.types
        columns: dict[str, pl.Series] = {}
        misfits = Misfits(chunk.height)
        for name in _COLUMNS:
            source = self._sources.get(name)
            if source not in chunk.columns:
                if name == Column.REQUEST_TIME and block.requested:  # another file has it
                    columns[name] = columns[Column.TIMESTAMP].alias(name)
                if name != Column.REQUEST_TIME:
                    dtype = types[name] if name in ID_COLUMNS else LOG_SCHEMA[name]
                    columns[name] = pl.Series(name, [None] * chunk.height, dtype=dtype)
                if name == Column.TIMESTAMP:  # the order of the rows is all there is
                    rows = pl.int_range(first_row, first_row + chunk.height, eager=True)
                    columns[name] = (rows + FIRST_TIMESTAMP).alias(name)
                continue
            raw = chunk[source]
            if name in _EMPTY_IS_UNKNOWN:
                raw = _without_empty(raw)
            columns[name] = self._typed(part.where, name, raw, types).alias(name)
            expected = self.times.described if name in _TIMES else None
            misfits.note(name, raw, columns[name], expected)
        frame = pl.DataFrame([*columns.values(), *misfits.columns])
        frame = self._with_flagged(part.where, frame, chunk)
        action, ignored = self.actions.apply(Column.ACTION_TYPE)
        reasons = [ignored, pl.col(REASON)]
        if self.times.unit != "ms":  # where they are, a row may stand out as one in seconds
            reasons.append(_out_of_range(pl.col(Column.TIMESTAMP)))
        return frame.with_columns(action, pl.coalesce(reasons).alias(REASON))

    def _with_flagged(self, where: str, frame: pl.DataFrame, chunk: pl.DataFrame) -> pl.DataFrame:
        """The rows, and right behind each one for every action that a flag says happened on it."""
        if not self.flags:
            return frame
        frame = frame.with_row_index(_ROW)
        frames = [frame]
        for flag in self.flags:
            happened = flagged(where, chunk[flag]) & frame[REASON].is_null()
            frames.append(
                frame.filter(happened).with_columns(pl.lit(flag).alias(Column.ACTION_TYPE))
            )
        return pl.concat(frames).sort(_ROW, maintain_order=True).drop(_ROW)

    def _typed(
        self, where: str, name: str, raw: pl.Series, types: dict[str, pl.DataType]
    ) -> pl.Series:
        """A column in its type of the contract, null where a value does not fit."""
        if name in ID_COLUMNS:
            return as_ids(raw, types[name])
        if name in _TIMES:
            return self.times.milliseconds(where, raw)
        return cast_or_refuse(where, raw, _NUMBER_SCHEMA.get(name, pl.String()))


def flagged(where: str, flags: pl.Series) -> pl.Series:
    """Whether each of some flags is set: above 0, or true. Null and NaN are not.

    Args:
        where: the file, for the sentence.
        flags: numbers, or the words true and false.

    Raises:
        DataError: most are neither.
    """
    if is_text(flags.dtype):
        lower = flags.cast(pl.String).str.to_lowercase()
        flags = lower.replace({"true": "1", "false": "0"}).alias(flags.name)
    elif flags.dtype == pl.Boolean:
        flags = flags.cast(pl.Float64)
    numbers = cast_or_refuse(where, flags, pl.Float64(), " of 0 and 1")
    return numbers.fill_nan(None).fill_null(0) > 0


def split_rows(
    frame: pl.DataFrame, actions: Collection[str] = ACTION_TYPES
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows, and bad rows with their reason.

    Args:
        frame: columns of ``LOG_SCHEMA``, where a reader found something the reason columns too.
        actions: names that an action type may have.

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
    reason = pl.coalesce(pl.col(REASON), *_row_checks(frame.schema, actions))
    frame = frame.with_columns(reason.alias(REASON))
    if frame[REASON].null_count() == frame.height:
        return frame.drop(REASON, DETAIL), frame.clear()
    good = pl.col(REASON).is_null()
    return frame.filter(good).drop(REASON, DETAIL), frame.filter(~good)


def _out_of_range(timestamp: pl.Expr) -> pl.Expr:
    outside = ~timestamp.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1)
    return pl.when(outside).then(pl.lit("timestamp is out of range"))


def _row_checks(schema: pl.Schema, actions: Collection[str]) -> list[pl.Expr]:
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
        (~pl.col(Column.ACTION_TYPE).is_in(list(actions)), UNKNOWN_ACTION),
    ]
    for name in (Column.DWELL_TIME, Column.VIDEO_DURATION):
        failures.append((pl.col(name) < 0, f"{name} is negative"))
        failures.append((pl.col(name).is_infinite(), f"{name} is infinite"))
    if Column.REQUEST_TIME in schema:
        late = pl.col(Column.REQUEST_TIME) > timestamp
        failures.append((late, "request_time is after the event"))
    return [pl.when(failed).then(pl.lit(reason)) for failed, reason in failures]


def _refuse_one_for_two(sources: dict[str, str]) -> None:
    """Refuse a column of the log that would stand for two of ours."""
    first: dict[str, str] = {}
    for ours, theirs in sources.items():
        if first.setdefault(theirs, ours) != ours:
            raise DataError(
                f"options.columns: {theirs} of the log would be both {first[theirs]} and {ours}; "
                "name another for one of the two."
            )


def _without_empty(raw: pl.Series) -> pl.Series:
    if not is_text(raw.dtype):
        return raw
    return raw.to_frame().select(pl.when(pl.first() != "").then(pl.first())).to_series()
