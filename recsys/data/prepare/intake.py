"""The first pass over a source: bad rows set apart, good ones set down by user, ids collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.actions import (
    IGNORED,
    UNKNOWN_ACTION,
    ActionTypes,
    add_unknown,
    merge_unknown,
    unknown_text,
)
from recsys.data.contract.ids import IdType, as_ids
from recsys.data.contract.log import split_rows
from recsys.data.contract.rejected import (
    DUPLICATED_EVENT,
    NOT_LATER,
    REASON,
    RejectedRows,
    SetAside,
)
from recsys.data.contract.schema import ID_COLUMNS, Column
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP
from recsys.data.prepare.spill import PartitionSpill
from recsys.data.prepare.taken_in import UNKNOWN_NAME, CodeBook, Piece, TakenIn
from recsys.data.stores.vocabulary import RAW, FirstSeen

_EVENTS = "events"
_REQUESTS = "requests"
_TAIL = "tail"

#: Own rows of a source with this reason are counted, not written aside.
ROWS_NOT_LATER = "request row: not after the last one of the data set"


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

    def merge(self, other: _Tally) -> None:
        """Count what another one has counted."""
        self._rows += other._rows
        self._undated += other._undated
        self._reasons.update(other._reasons)

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


@dataclass(frozen=True)
class IntakeSettings:
    """What is known before anything is taken in.

    Attributes:
        num_partitions: number of user partitions.
        actions: the action types that events may have.
        surfaces: names that have their code already; media_types likewise.
        id_types: of id columns whose type is settled, by a data set that is appended to.
        after: only events after this moment (ms) are taken in; the others, good and bad,
            are counted as rejected.
        requests_after: only request rows of a source's own after this moment, likewise.
    """

    num_partitions: int
    actions: ActionTypes = field(default_factory=ActionTypes)
    surfaces: tuple[str, ...] = (UNKNOWN_NAME,)
    media_types: tuple[str, ...] = (UNKNOWN_NAME,)
    id_types: Mapping[str, pl.DataType] = field(default_factory=dict)
    after: int | None = None
    requests_after: int | None = None


class Intake:
    """Takes in events and request rows and sets them down by user.

    A stretch of a source may be taken in by a process of its own, whose intake is then pickled
    and merged into that of the stretch before it.

    Args:
        folder: for temporary files.
        settings: what is known before.
        rejected: where bad rows go.

    Attributes:
        seen: per id column the ids and when each was first seen.
        num_events: rows set down, duplicates included.
        last_timestamp: of any event taken in, ms.
        last_request: of any request row of a source's own, ms; None where it has given none.
        unknown_actions: rows set aside since their action is unknown, by its name.
    """

    def __init__(
        self, folder: Path, settings: IntakeSettings, rejected: RejectedRows | SetAside
    ) -> None:
        self.settings = settings
        self.actions = settings.actions
        self.unknown_actions: Counter[str] = Counter()
        self.rejected = rejected
        self.surfaces = CodeBook(Column.SURFACE, settings.surfaces)
        self.media_types = CodeBook(Column.MEDIA_TYPE, settings.media_types)
        self.after = settings.after
        self.seen = {name: FirstSeen() for name in ID_COLUMNS}
        self.num_events = 0
        self.last_timestamp = 0
        self.last_request: int | None = None
        num_partitions = settings.num_partitions
        self._id_types = dict(settings.id_types)
        self._kept_types = frozenset(self._id_types)
        self._tally = {_EVENTS: _Tally(), _REQUESTS: _Tally()}
        self._action_codes = CodeBook(Column.ACTION_TYPE, self.actions.names)
        self._events = PartitionSpill(folder / _EVENTS, Column.USER, num_partitions)
        self._requests = PartitionSpill(folder / _REQUESTS, Column.USER, num_partitions)
        self._tail = PartitionSpill(folder / _TAIL, Column.USER, num_partitions)
        self._attributes: list[pl.DataFrame] = []
        self._pieces: list[Piece] = []

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

    def add_own_requests(self, frame: pl.DataFrame) -> None:
        """Take in request rows that a source has beside its events."""
        after = self.settings.requests_after
        if after is not None:
            is_old = pl.col(Column.REQUEST_TIME).is_between(FIRST_TIMESTAMP, after)
            later = frame.filter(is_old.not_() | is_old.is_null())
            self.rejected.count(ROWS_NOT_LATER, frame.height - later.height)
            frame = later
        last = int(frame[Column.REQUEST_TIME].max() or 0)  # type: ignore[arg-type]
        self.last_request = max(self.last_request or after or 0, last)
        good = self.add_requests(frame)
        for name in (Column.USER, Column.ITEM):
            self.seen[name].add(good[name], good[Column.REQUEST_TIME])

    def add_requests(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Take in request rows; returns those that can be used."""
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
        self._requests.add(good)
        return good

    def close(self) -> None:
        """Finish the files; what was set down can be read, and the intake pickled."""
        for spill in (self._events, self._requests, self._tail):
            spill.finish()

    def finish_events(self) -> None:
        """All events are in.

        Raises:
            DataError: more than half of them cannot be used.
        """
        # among the old rows of a log there are such without a time, which may be known as bad
        has_old = NOT_LATER in self.rejected.counts
        mend = f" {unknown_text(self.unknown_actions)}" if self.unknown_actions else ""
        self._tally[_EVENTS].refuse_mostly_bad("rows of the log", not has_old, mend)
        self.close()

    @property
    def taken(self) -> TakenIn:
        """What was set down so far, to be read by partition in any process."""
        books = self._code_books()
        pieces = [Piece(self._events, self._requests, {b.column: b.names for b in books})]
        return TakenIn(self.settings.num_partitions, pieces + self._pieces, self._tail, books)

    @property
    def has_requests(self) -> bool:
        """Whether any request row was taken in."""
        return self.taken.has_requests

    def finish_requests(self) -> None:
        """All request rows are in.

        Raises:
            DataError: more than half of them cannot be used.
        """
        self._tally[_REQUESTS].refuse_mostly_bad("request rows")
        self.close()

    def merge(self, other: Intake) -> None:
        """Take in what another intake, of the stretch behind that of this one, has taken in.

        Raises:
            DataError: as ``add_events``.
        """
        piece = other.taken.pieces[0]
        self._pieces.append(piece)
        for book in self._code_books():
            book.learn(piece.names[book.column])
        for name, dtype in other._id_types.items():
            self._id_types.setdefault(name, dtype)
        for name in ID_COLUMNS:
            for ids, moments in other.seen[name].chunks():
                self.seen[name].add(self._of_known_type(ids.alias(name)), moments)
        self._attributes += other._attributes
        self._compact_attributes()
        for rows, tally in self._tally.items():
            tally.merge(other._tally[rows])
        self.num_events += other.num_events
        self.last_timestamp = max(self.last_timestamp, other.last_timestamp)
        if other.last_request is not None:
            self.last_request = max(self.last_request or 0, other.last_request)
        merge_unknown(self.unknown_actions, other.unknown_actions)
        assert isinstance(other.rejected, SetAside)
        self.rejected.take(other.rejected)

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
        self._compact_attributes()

    def _compact_attributes(self) -> None:
        if len(self._attributes) >= 16:
            self._attributes = [self._noted()]

    def _code_books(self) -> tuple[CodeBook, CodeBook, CodeBook]:
        return self.surfaces, self.media_types, self._action_codes


def _columns_of(table: pl.DataFrame | None) -> list[str]:
    return [] if table is None else table.columns


def _first_known(frame: pl.DataFrame) -> pl.DataFrame:
    names = (Column.AUTHOR, Column.TOPIC)
    return frame.group_by(Column.ITEM, maintain_order=True).agg(
        pl.col(name).drop_nulls().first() for name in names
    )
