"""The first pass over a source: bad rows set apart, good ones set down by user, ids collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.actions import (
    IGNORED,
    UNKNOWN_ACTION,
    ActionTypes,
    add_unknown,
    unknown_text,
)
from recsys.data.contract.ids import IdType, as_ids
from recsys.data.contract.log import split_rows
from recsys.data.contract.rejected import (
    DUPLICATED_EVENT,
    DUPLICATED_REQUEST,
    NOT_LATER,
    REASON,
    RejectedRows,
)
from recsys.data.contract.schema import ID_COLUMNS, Column
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP
from recsys.data.prepare.spill import PartitionSpill
from recsys.data.stores.vocabulary import RAW, FirstSeen

UNKNOWN_NAME = "unknown"

_MAX_NAMES = 127  # codes are int8; one of them is unknown
_EVENTS = "events"
_REQUESTS = "requests"
_TAIL = "tail"


class CodeBook:
    """Names to codes in order of appearance; code 0 is ``unknown``.

    Args:
        column: whose names they are.
        names: names that have their code already.
    """

    def __init__(self, column: str, names: Iterable[str] = (UNKNOWN_NAME,)) -> None:
        self.column = column
        self.names = list(names)

    def encode(self, values: pl.Series) -> pl.Series:
        """The code of each value, int8; new names get the next codes.

        Raises:
            DataError: there are more than 127 names.
        """
        new = values.drop_nulls().unique(maintain_order=True)
        self.names += [name for name in new if name not in self.names]
        if len(self.names) > _MAX_NAMES:
            raise DataError(
                f"column {self.column} has more than {_MAX_NAMES} different values "
                f"(such as {self.names[-1]!r}); merge rare ones before preparing the log."
            )
        codes = range(len(self.names))
        return values.replace_strict(self.names, codes, default=0, return_dtype=pl.Int8)

    def decode(self, codes: pl.Series) -> pl.Series:
        """The name of each code; null for unknown."""
        names = [None if name == UNKNOWN_NAME else name for name in self.names]
        return codes.replace_strict(range(len(names)), names, return_dtype=pl.String)


class _Tally:
    """How many rows came, and why some of them cannot be used."""

    def __init__(self) -> None:
        self._rows = 0
        self._undated = 0
        self._reasons: Counter[str] = Counter()

    def add(self, good: pl.DataFrame, bad: pl.DataFrame) -> None:
        """Count a chunk."""
        self._rows += good.height + bad.height
        self._reasons.update(bad[REASON] if REASON in bad.columns else ())
        if Column.TIMESTAMP in bad.columns:
            dated = bad[Column.TIMESTAMP].is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1)
            self._undated += bad.height - int(dated.sum())

    def refuse_mostly_bad(self, what: str, count_undated: bool = True, mend: str = "") -> None:
        """Refuse what is more bad than good.

        Args:
            what: the rows, for the sentence.
            count_undated: rows without a usable timestamp are among them.
            mend: a sentence on how to mend it; a general one where it is empty.

        Raises:
            DataError: more than half of the rows cannot be used, whatever the reasons.
        """
        left_out = 0 if count_undated else self._undated
        rows, bad = self._rows - left_out, self._reasons.total() - left_out
        if 2 * bad > rows:
            reasons = ", ".join(f"{why}: {count:,}" for why, count in self._reasons.most_common())
            raise DataError(
                f"{bad:,} of {rows:,} {what} cannot be used ({reasons}); more than half is no log "
                "with some bad rows but one that is read in the wrong way: correct its files, or "
                f"say how they are to be read (options.columns, options.actions).{mend}"
            )


class Intake:
    """Takes in events and request rows and sets them down by user.

    Args:
        folder: for temporary files.
        num_partitions: number of user partitions.
        rejected: where bad rows go.
        surfaces: names that have their code already; media_types likewise.
        after: only events after this moment (ms) are taken in; the others, good and bad,
            are counted as rejected.
        id_types: of id columns whose type is settled, by a data set that is appended to.
        actions: the action types that events may have.

    Attributes:
        seen: per id column the ids and when each was first seen.
        num_events: rows set down, duplicates included.
        last_timestamp: of any event taken in, ms.
        unknown_actions: rows set aside since their action is unknown, by its name.
    """

    def __init__(
        self,
        folder: Path,
        num_partitions: int,
        rejected: RejectedRows,
        surfaces: Iterable[str] = (UNKNOWN_NAME,),
        media_types: Iterable[str] = (UNKNOWN_NAME,),
        after: int | None = None,
        id_types: Mapping[str, pl.DataType] | None = None,
        actions: ActionTypes | None = None,
    ) -> None:
        self.actions = actions or ActionTypes()
        self.unknown_actions: Counter[str] = Counter()
        self.num_partitions = num_partitions
        self.rejected = rejected
        self.surfaces = CodeBook(Column.SURFACE, surfaces)
        self.media_types = CodeBook(Column.MEDIA_TYPE, media_types)
        self.after = after
        self.seen = {name: FirstSeen() for name in ID_COLUMNS}
        self.num_events = 0
        self.last_timestamp = 0
        self._id_types = dict(id_types or {})
        self._kept_types = frozenset(self._id_types)
        self._tally = {_EVENTS: _Tally(), _REQUESTS: _Tally()}
        self._action_codes = CodeBook(Column.ACTION_TYPE, self.actions.names)
        self._events = PartitionSpill(folder / _EVENTS, Column.USER, num_partitions)
        self._requests = PartitionSpill(folder / _REQUESTS, Column.USER, num_partitions)
        self._tail = PartitionSpill(folder / _TAIL, Column.USER, num_partitions)
        self._attributes: list[pl.DataFrame] = []

    def add_tail(self, frame: pl.DataFrame) -> None:
        """Take in events of the data set that is appended to, whose labels may still come."""
        self._tail.add(frame)

    def add_events(self, frame: pl.DataFrame) -> None:
        """Take in a chunk of the interaction log."""
        if self.after is not None:
            # most of them are in the data set or were rejected when it was made, so they are
            # neither checked nor written again: the log they stand in is copy enough
            is_old = pl.col(Column.TIMESTAMP).is_between(FIRST_TIMESTAMP, self.after)
            later = frame.filter(is_old.not_() | is_old.is_null())
            self.rejected.count(NOT_LATER, frame.height - later.height)
            frame = later
        good, bad = split_rows(frame, self.actions.names)
        bad = self._without_ignored(bad)
        unknown = bad.filter(pl.col(REASON) == UNKNOWN_ACTION) if bad.height else bad
        add_unknown(self.unknown_actions, unknown[Column.ACTION_TYPE])
        self.rejected.add(bad)
        self._tally[_EVENTS].add(good, bad.filter(pl.col(REASON) != DUPLICATED_EVENT))
        if good.is_empty():
            return
        good = good.with_columns(self._of_known_type(good[name]) for name in ID_COLUMNS)
        for name in ID_COLUMNS:
            self.seen[name].add(good[name], good[Column.TIMESTAMP])
        self._note_attributes(good)
        self.num_events += good.height
        self.last_timestamp = max(self.last_timestamp, int(good[Column.TIMESTAMP].max()))  # type: ignore[arg-type]
        self._events.add(
            good.with_columns(book.encode(good[book.column]) for book in self._code_books())
        )

    def add_requests(self, frame: pl.DataFrame) -> None:
        """Take in request rows as a source gives them."""
        time = pl.col(Column.REQUEST_TIME)
        reason = pl.coalesce(
            *(
                pl.when(pl.col(name).is_null()).then(pl.lit(f"request row: {name} is null"))
                for name in (Column.USER, Column.ITEM, Column.REQUEST_TIME)
            ),
            pl.when(~time.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1)).then(
                pl.lit("request row: request_time is out of range")
            ),
        )
        frame = frame.with_columns(reason.alias(REASON))
        bad = frame.filter(pl.col(REASON).is_not_null())
        good = frame.filter(pl.col(REASON).is_null()).drop(REASON)
        self.rejected.add(bad)
        self._tally[_REQUESTS].add(good, bad)
        for name in (Column.USER, Column.ITEM):
            self.seen[name].add(good[name], good[Column.REQUEST_TIME])
        self._requests.add(good)

    def finish_events(self) -> None:
        """All events are in.

        Raises:
            DataError: more than half of them cannot be used.
        """
        # among the old rows of a log there are such without a time, which may be known as bad
        has_old = NOT_LATER in self.rejected.counts
        mend = f" {unknown_text(self.unknown_actions)}" if self.unknown_actions else ""
        self._tally[_EVENTS].refuse_mostly_bad("rows of the log", not has_old, mend)
        self._events.finish()
        self._tail.finish()

    @property
    def has_request_times(self) -> bool:
        """Whether any event says when it was requested."""
        schemas = (self._events.schema, self._tail.schema)
        return any(schema is not None and Column.REQUEST_TIME in schema for schema in schemas)

    @property
    def has_requests(self) -> bool:
        """Whether any request row was taken in."""
        return self._requests.schema is not None

    def finish_requests(self) -> None:
        """All request rows are in.

        Raises:
            DataError: more than half of them cannot be used.
        """
        self._tally[_REQUESTS].refuse_mostly_bad("request rows")
        self._requests.finish()

    def read_events(self, partition: int) -> pl.DataFrame | None:
        """The events of a partition's users in log order, names as strings, duplicates dropped.

        They are written aside the first time; the events stay on the disk until ``drop_events``.
        """
        frame = self._events.read(partition)
        if frame is None:
            return None
        unique, again = _parted(frame)
        self.rejected.add(self._decoded(again), DUPLICATED_EVENT)
        return self._decoded(unique)

    def read_tail(self, partition: int) -> pl.DataFrame | None:
        """The events of ``add_tail`` of a partition's users, in log order."""
        return self._tail.read(partition)

    def drop_events(self, partition: int) -> None:
        """Free the disk space of a partition's events."""
        self._events.remove(partition)
        self._tail.remove(partition)

    def read_requests(self, partition: int) -> pl.DataFrame | None:
        """The request rows of a partition's users in the order they came."""
        return self._requests.read(partition)

    def remove_duplicated_requests(self) -> None:
        """Write request rows aside that are in there twice."""
        for partition in range(self.num_partitions):
            frame = self._requests.read(partition)
            if frame is None:
                continue
            unique, again = _parted(frame)
            if not again.is_empty():
                self.rejected.add(again, DUPLICATED_REQUEST)
                self._requests.remove(partition)
                self._requests.add(unique)
        self._requests.finish()

    def attributes(self, stated: pl.DataFrame | None = None) -> pl.DataFrame:
        """``item_id``, ``author_id``, ``topic_id``, one row per item.

        Args:
            stated: a table of items, whose author or topic, where it has such columns, goes before
                what the events say about an item first.

        Raises:
            DataError: it has ids of another type than the data set that is appended to.
        """
        noted = self._noted()
        names = [name for name in (Column.AUTHOR, Column.TOPIC) if name in _columns_of(stated)]
        if stated is None or not names:
            return noted
        item = as_ids(stated[Column.ITEM], self._id_types[Column.ITEM])
        of_table = pl.DataFrame([item, *(self._settled(stated[name]) for name in names)])
        of_table = of_table.drop_nulls(Column.ITEM)
        of_table = of_table.unique(Column.ITEM, keep="first", maintain_order=True)
        noted = noted.with_columns(as_ids(noted[name], self._id_types[name]) for name in names)
        joined = of_table.join(noted, on=Column.ITEM, how="full", coalesce=True, suffix="_noted")
        return joined.select(
            Column.ITEM,
            *(
                pl.coalesce(name, f"{name}_noted").alias(name) if name in names else name
                for name in (Column.AUTHOR, Column.TOPIC)
            ),
        )

    def _noted(self) -> pl.DataFrame:
        """What the events say about each item first."""
        if not self._attributes:
            names = (Column.ITEM, Column.AUTHOR, Column.TOPIC)
            return pl.DataFrame(schema={name: self._id_types[name] for name in names})
        return _first_known(pl.concat(self._attributes, how="vertical_relaxed"))

    def _settled(self, ids: pl.Series) -> pl.Series:
        """Ids of a table in the type that keeps them and those of the log as they are written."""
        kind = IdType()
        kind.add(ids)
        ids = ids.cast(kind.dtype)
        name = ids.name
        if name in self._kept_types:
            return self._of_known_type(ids)
        seen = self.seen[name]
        if not seen.is_empty:
            kind.add(seen.table()[RAW])
            seen.retype(kind.dtype)
        self._id_types[name] = kind.dtype
        return as_ids(ids, kind.dtype)

    def _without_ignored(self, bad: pl.DataFrame) -> pl.DataFrame:
        """The rows that the user does not want left out; the others are counted."""
        if bad.is_empty():
            return bad
        is_ignored = bad[REASON].str.starts_with(IGNORED)
        for reason, count in bad[REASON].filter(is_ignored).value_counts().iter_rows():
            self.rejected.count(reason, count)
        return bad.filter(~is_ignored)

    def _of_known_type(self, ids: pl.Series) -> pl.Series:
        """Ids in the type of those before them.

        Raises:
            DataError: the others are numbers and these are not.
        """
        known = self._id_types.setdefault(ids.name, ids.dtype)
        typed = as_ids(ids, known)
        is_lost = typed.is_null() & ids.is_not_null()
        if known != pl.String() and ids.dtype == pl.String():
            is_lost = ids.is_not_null()  # text is a change of type though it may read as numbers
        if is_lost.any():
            raise DataError(
                f"{ids.name} holds {'the text ' * (ids.dtype == pl.String())}"
                f"{ids.filter(is_lost)[0]!r}, the ids of this data set are whole numbers "
                f"({str(known).lower()}); ids are kept as they are written, so these cannot stand "
                "beside those: correct the column, or prepare the whole log again with "
                "overwrite=true."
            )
        return typed

    def _note_attributes(self, events: pl.DataFrame) -> None:
        names = (Column.ITEM, Column.AUTHOR, Column.TOPIC)
        known = events.select(names).filter(
            pl.col(Column.AUTHOR).is_not_null() | pl.col(Column.TOPIC).is_not_null()
        )
        if known.is_empty():
            return
        self._attributes.append(_first_known(known))
        if len(self._attributes) >= 16:
            self._attributes = [self._noted()]

    def _decoded(self, events: pl.DataFrame) -> pl.DataFrame:
        return events.with_columns(book.decode(events[book.column]) for book in self._code_books())

    def _code_books(self) -> tuple[CodeBook, CodeBook, CodeBook]:
        return self.surfaces, self.media_types, self._action_codes


def _parted(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first of equal rows, and the others."""
    if frame.n_unique() == frame.height:
        return frame, frame.clear()
    first = frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    return frame.filter(first), frame.filter(~first)


def _columns_of(table: pl.DataFrame | None) -> list[str]:
    return [] if table is None else table.columns


def _first_known(frame: pl.DataFrame) -> pl.DataFrame:
    names = (Column.AUTHOR, Column.TOPIC)
    return frame.group_by(Column.ITEM, maintain_order=True).agg(
        pl.col(name).drop_nulls().first() for name in names
    )
