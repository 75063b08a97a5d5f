"""The whole log, read once in pieces: who, what, when, and what cannot be used."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.ids import IdType, is_text
from recsys.data.contract.log import flagged
from recsys.data.contract.log_parts import LogPart
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_SECOND
from recsys.data.contract.time_columns import FIRST_TIMESTAMP, LAST_TIMESTAMP, TimeFormat
from recsys.data.infer.hash_sample import HashSample, hashes_of

#: Different names of actions that are counted.
_MOST_ACTIONS = 1_000


@dataclass(frozen=True)
class Columns:
    """The columns of a log that are read whole; None where there is none.

    Attributes:
        user: of users.
        item: of items.
        timestamp: of times.
        unit: of the times, as ``options.time_unit``.
        action: of actions.
        flags: of 0 and 1, each of an action.
    """

    user: str | None
    item: str | None
    timestamp: str | None
    unit: str
    action: str | None
    flags: tuple[str, ...] = ()

    @property
    def present(self) -> list[str]:
        """Their names."""
        named = (self.user, self.item, self.timestamp, self.action, *self.flags)
        return list(dict.fromkeys(name for name in named if name is not None))


@dataclass
class Survey:
    """What a whole log consists of.

    Attributes:
        rows: of the log.
        without_user: rows whose user is null or blank; likewise ``without_item``.
        without_time: rows whose time cannot be read, or is before 1973 or after 2286.
        usable: rows with all three.
        users: rows by user.
        items: rows by item.
        events: rows by all that is read of them.
        user_type: whether users are numbers or text; likewise ``item_type``.
        actions: rows by name of action, of the commonest; None for rows without one.
        days: usable rows by day since 1970 (UTC).
        first: earliest usable time, ms; None where there is none.
        last: latest usable time that is not in the future, ms.
        future: usable rows after the moment of the survey.
        midnight: usable rows at the first moment of a day.
        in_order: whether times never go back from row to row.
        padded: rows whose id has blanks around it, by column.
    """

    rows: int = 0
    without_user: int = 0
    without_item: int = 0
    without_time: int = 0
    usable: int = 0
    users: HashSample = field(default_factory=HashSample)
    items: HashSample = field(default_factory=HashSample)
    events: HashSample = field(default_factory=HashSample)
    user_type: IdType = field(default_factory=IdType)
    item_type: IdType = field(default_factory=IdType)
    actions: Counter[str | None] = field(default_factory=Counter)
    days: Counter[int] = field(default_factory=Counter)
    first: int | None = None
    last: int | None = None
    future: int = 0
    midnight: int = 0
    in_order: bool = True
    padded: Counter[str] = field(default_factory=Counter)


def survey(parts: Sequence[LogPart], columns: Columns, zone: str = "UTC") -> Survey:
    """Read the columns of a whole log.

    Args:
        parts: of the log.
        columns: which are read.
        zone: of times that name none.

    Raises:
        DataError: a file is damaged.
    """
    found = Survey()
    now = round(time.time() * MILLISECONDS_PER_SECOND)
    latest = FIRST_TIMESTAMP
    present = columns.present
    for part in track(parts, "Reading the log"):
        # of a log of which no column is known the rows are counted
        read = [name for name in present if name in part.types] or list(part.types)[:1]
        for chunk in part.chunks(read):
            absent = [pl.lit(None, pl.String).alias(n) for n in present if n not in chunk.columns]
            latest = _add(found, part, chunk.with_columns(absent), columns, zone, now, latest)
    return found


def _add(
    found: Survey,
    part: LogPart,
    chunk: pl.DataFrame,
    columns: Columns,
    zone: str,
    now: int,
    latest: int,
) -> int:
    """Count a chunk; the latest time so far."""
    found.rows += chunk.height
    good = pl.repeat(True, chunk.height, eager=True)
    for name, kind, missing in (
        (columns.user, found.user_type, "without_user"),
        (columns.item, found.item_type, "without_item"),
    ):
        if name is None:
            continue
        is_id = _has_id(chunk[name])
        setattr(found, missing, getattr(found, missing) + int((~is_id).sum()))
        good &= is_id
        if chunk[name].dtype.is_integer() or is_text(chunk[name].dtype):
            kind.add(chunk[name].filter(is_id), name in part.spelt_out)
        if is_text(chunk[name].dtype):
            text = chunk[name].cast(pl.String)
            found.padded[name] += int((text != text.str.strip_chars()).sum())
    if columns.action is not None:
        _count_actions(found.actions, chunk[columns.action])
    for flag in columns.flags:
        found.actions[flag] += int(flagged(part.where, chunk[flag]).sum())
    if columns.timestamp is not None:
        times = _times(part.where, chunk[columns.timestamp], columns.unit, zone)
        is_time = times.is_between(FIRST_TIMESTAMP, LAST_TIMESTAMP - 1).fill_null(False)
        found.without_time += int((~is_time).sum())
        good &= is_time
        latest = _add_times(found, times.filter(good), now, latest)
    found.usable += int(good.sum())
    rows = chunk.filter(good)
    if columns.user is not None:
        found.users.add(hashes_of(rows[columns.user]))
    if columns.item is not None:
        found.items.add(hashes_of(rows[columns.item]))
    found.events.add(rows.select(columns.present).hash_rows(seed=0))
    return latest


def _add_times(found: Survey, times: pl.Series, now: int, latest: int) -> int:
    if times.is_empty():
        return latest
    past = times.filter(times <= now)
    found.future += len(times) - len(past)
    found.in_order &= bool((times.diff().drop_nulls() >= 0).all()) and times[0] >= latest
    found.midnight += int((times % MILLISECONDS_PER_DAY == 0).sum())
    for day, count in (past // MILLISECONDS_PER_DAY).alias("day").value_counts().iter_rows():
        found.days[day] += count
    if len(past):
        first, last = int(past.min()), int(past.max())  # type: ignore[arg-type]
        found.first = first if found.first is None else min(found.first, first)
        found.last = last if found.last is None else max(found.last, last)
    return int(times[-1])


def _times(where: str, raw: pl.Series, unit: str, zone: str) -> pl.Series:
    """Times in ms; all null where most of a chunk is in another unit."""
    try:
        return TimeFormat(unit, zone).milliseconds(where, raw)
    except DataError:
        return pl.Series(raw.name, [None] * len(raw), dtype=pl.Int64)


def _has_id(ids: pl.Series) -> pl.Series:
    """Whether rows have an id that is not blank."""
    if is_text(ids.dtype):
        return (ids.cast(pl.String).str.strip_chars() != "").fill_null(False)
    return ids.is_not_null()


def _count_actions(counted: Counter[str | None], names: pl.Series) -> None:
    for name, count in names.cast(pl.String).alias("name").value_counts(sort=True).iter_rows():
        if name in counted or len(counted) < _MOST_ACTIONS:
            counted[name] += count
