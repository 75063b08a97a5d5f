"""Any interaction log in the contract: its impressions are the request rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import polars as pl

from recsys.core.bounds import Count, Hours, Number, OneOf
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.actions import ActionNames, ActionTypes
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS, data_files
from recsys.data.contract.input_files import InputFile, describe_frame
from recsys.data.contract.log import LogBlock, LogReader, split_rows
from recsys.data.contract.log_parts import name_of
from recsys.data.contract.manifest import MOMENTS, ORDER
from recsys.data.contract.schema import (
    IMPRESSION,
    MILLISECONDS_PER_HOUR,
    SHOWN_AT,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
    TaskKind,
)
from recsys.data.contract.table_snapshots import TableSnapshot, with_snapshot
from recsys.data.contract.time_columns import UNITS, TimeFormat
from recsys.data.sources.base import Source
from recsys.data.sources.log_order import ordered_log
from recsys.data.sources.log_tables import LogTables
from recsys.data.sources.order import FIT_DAYS, last_events_apart, order_bounds, users_apart
from recsys.data.sources.periods import PeriodOptions, periods
from recsys.data.sources.tables import ItemTableOptions, UserTableOptions

WATCH_TIME = Task("watch_time", TaskKind.REGRESSION)
HOUR_OF_DAY = Feature("hour_of_day", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)

#: How a log is split.
BY_TIME, BY_LAST, BY_USERS = SPLITS = ("time", "last", "users")

_ROW = "row"


#: Options that say something of moments, so nothing where a log has an order only.
_OF_TIMES = ("fit_until", "choose_until", "choose_days", "report_days", "tasks", "task_hours")


@dataclass(frozen=True)
class LogOptions(PeriodOptions):
    """How a log is read.

    Attributes:
        columns: column of the contract to the name it has in the log, where they differ; null for
            ``timestamp`` of a log that has an order only.
        time_unit: of numbers in ``timestamp`` and ``request_time``, since 1970 (UTC), or ``iso``
            for texts as in ISO 8601.
        time_zone: of texts and datetimes that name none.
        default_action: action of rows that name none, as if it stood there; None: ``impression``.
        actions: name in the log to a known action type, or to ``positive`` or ``negative``, which
            make it an action of its own, or to ``ignore``, which leaves its rows out. Known action
            types that are not listed mean themselves.
        flags: columns of 0 and 1, or of true and false, that each say whether an action happened on
            a row's item, named as the column: an event beside the row's own.
        tasks: actions to predict, ``watch_time`` among them; None for all that the log has.
        attribution_hours: an action counts for an impression at most this long before it.
        task_hours: the same for single tasks, where it differs.
        split: ``time``; ``last``, by which the last events of each user are reported; or ``users``,
            by which users are held out. The latter two see the order of a user's events alone.
        last_events: with ``split=last``, how many events of each user are reported, and how many
            before them chosen on; explicit ones that are not negative count.
        choose_users: with ``split=users``, share of the users that is chosen on.
        report_users: with ``split=users``, share of the users that is reported.
        items: the table of items, or which columns of the log say something of them.
        users: likewise of users.
        snapshot: of a table of Delta Lake, the version, or of Iceberg, the id of what is read; None
            for the newest one.
        chunk_rows: rows read at a time.
    """

    columns: dict[str, str | None] = field(default_factory=dict)
    time_unit: Annotated[str, OneOf(UNITS)] = "ms"
    time_zone: str = "UTC"
    default_action: str | None = None
    actions: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    tasks: list[str] | None = None
    attribution_hours: Hours = 24.0
    task_hours: dict[str, Hours] = field(default_factory=dict)
    split: Annotated[str, OneOf(SPLITS)] = BY_TIME
    last_events: Annotated[int, Number(at_least=1, at_most=10_000)] = 1
    choose_users: Annotated[float, Number(above=0, below=1)] = 0.1
    report_users: Annotated[float, Number(above=0, below=1)] = 0.1
    items: ItemTableOptions | None = None
    users: UserTableOptions | None = None
    snapshot: Annotated[int, Number(at_least=0, at_most=2**63 - 1)] | None = None
    chunk_rows: Count = DEFAULT_CHUNK_ROWS

    def __post_init__(self) -> None:
        """Refuse settings that do not belong together.

        Raises:
            ConfigError: there are such.
        """
        super().__post_init__()
        if self.split == BY_TIME:
            if self.columns.get(Column.TIMESTAMP, "") is None:
                raise ConfigError(
                    "options.columns.timestamp is null, so the log has an order only, and nothing "
                    "to split by time; set options.split=last or options.split=users."
                )
            return
        for name in _OF_TIMES:
            if getattr(self, name):
                raise ConfigError(
                    f"options.{name} belongs to a split by time; with options.split={self.split} "
                    "the order of a user's events is all that is left of their times, so there are "
                    "neither dates nor labels of what was shown: leave it out, or set "
                    "options.split=time."
                )


@dataclass(frozen=True)
class _Found:
    """What the usable rows of a log, or of a piece of it, hold.

    Attributes:
        actions: their names.
        has_dwell: whether any row has a dwell time.
        first: earliest request, ms; None without rows.
        last: latest event, ms.
    """

    actions: frozenset[str] = frozenset()
    has_dwell: bool = False
    first: int | None = None
    last: int = 0

    @classmethod
    def of(cls, rows: pl.DataFrame) -> _Found:
        """What some rows, at least one, hold."""
        times = rows[_request_time_column(rows)]
        return cls(
            frozenset(rows[Column.ACTION_TYPE].unique()),
            rows[Column.DWELL_TIME].null_count() < rows.height,
            int(times.min()),  # type: ignore[arg-type]
            int(rows[Column.TIMESTAMP].max()),  # type: ignore[arg-type]
        )

    def joined(self, other: _Found) -> _Found:
        """What both hold."""
        moments = [first for first in (self.first, other.first) if first is not None]
        return _Found(
            self.actions | other.actions,
            self.has_dwell or other.has_dwell,
            min(moments, default=None),
            max(self.last, other.last),
        )


class LogSource(Source):
    """Reads a log; tasks and split bounds are known once its events have been read.

    Rows: every impression is a row; rows of one user and one ``request_time`` (the timestamp
    where the log has none) form a request. The label of a task is 1 where the user took that
    action on that item at or after the impression, within the attribution window; an action
    counts for the latest impression before it. ``watch_time`` is the impression's dwell time. A
    label's event lies at or after the request, so no history that is cut there holds it.

    Split otherwise than by time, the log has pseudo times and no rows.

    Args:
        data: a Parquet or CSV file, a folder of them, a table of Delta Lake or Iceberg, or a polars
            frame.
        options: how the log is read.
    """

    name = "log"
    features: tuple[Feature, ...] = (
        Feature(Column.SURFACE, FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
        Feature(Column.MEDIA_TYPE, FeatureSide.CONTEXT, FeatureKind.CATEGORICAL),
        HOUR_OF_DAY,
        Feature(Column.VIDEO_DURATION, FeatureSide.CONTEXT, FeatureKind.DENSE),
    )

    def __init__(
        self,
        data: Path | pl.DataFrame | pl.LazyFrame,
        options: LogOptions | None = None,
    ) -> None:
        self.options = options or LogOptions()
        data = with_snapshot(data, self.options.snapshot)  # the same one, however often it is read
        names = ActionNames(self.options.actions, self.options.default_action)
        times = TimeFormat(self.options.time_unit, self.options.time_zone)
        self._reader = LogReader(
            data, self.options.columns, names, times, self.options.chunk_rows, self.options.flags
        )
        self.actions = names.types
        _refuse_other_tasks(self.options, self.actions)
        self.times = MOMENTS if self.options.split == BY_TIME else ORDER
        self._tables = LogTables(
            self.options.items,
            self.options.users,
            data,
            self.options.columns,
            [feature.name for feature in self.features],
            self.options.chunk_rows,
        )
        self.features = (*self.features, *self._tables.features)
        self.texts, self.shown = self._tables.items.texts, self._tables.items.shown
        self.lists = self._tables.lists
        self.first_known = self._tables.first_known
        self._found = _Found()

    @property
    def tasks(self) -> tuple[Task, ...]:  # type: ignore[override]
        """The wanted tasks, or every action of the log and, where it has any, dwell time."""
        if self.times == ORDER:
            return ()
        self._survey()
        explicit = self.actions.explicit
        wanted = self.options.tasks
        if wanted is None:
            wanted = [name for name in explicit if name in self._found.actions]
            wanted += [WATCH_TIME.name] * self._found.has_dwell
        if not wanted and self.options.tasks is not None:
            raise ConfigError(
                "options.tasks is empty; name actions to predict, or leave it away for all that "
                "the log has."
            )
        for name in wanted:
            if wanted.count(name) > 1:
                raise ConfigError(f"options.tasks: {name} stands there twice; name it once.")
            if name != WATCH_TIME.name and name not in explicit:
                raise ConfigError(
                    f"options.tasks: {name} is no task; tasks are {', '.join(explicit)} "
                    f"and {WATCH_TIME.name}. An action of your own is declared by "
                    f"options.actions.{name}=positive or negative."
                )
        return tuple(WATCH_TIME if name == WATCH_TIME.name else Task(name) for name in wanted)

    def why_useless(self) -> str | None:
        """That it is a log of impressions alone, where its columns say so."""
        learnable = [Column.ACTION_TYPE] + [Column.DWELL_TIME] * (self.times == MOMENTS)
        if self._reader.actions.default_type != IMPRESSION or self._reader.flags:
            return None
        if self._reader.columns_found().intersection(learnable):
            return None
        where = name_of(self._reader.data)
        return (
            f"{where} has no column {' or '.join(learnable)}, so every row is an impression and "
            "there is nothing to predict. If its rows are something that users did, say what: "
            "options.default_action=click. If a column says it, name that: "
            "options.columns.action_type=<its name>."
        )

    @property
    def split_bounds(self) -> dict[str, tuple[int, int]]:  # type: ignore[override]
        """The configured bounds, or fractions of the time the log covers."""
        if self.times == ORDER:
            return order_bounds(FIT_DAYS)
        self._survey()
        if self._found.first is None:
            raise DataError("the log has no row that can be used; see the reasons in rejected/.")
        return self.bounds_over(self._found.first, self._found.last)

    def bounds_over(self, first: int, last: int) -> dict[str, tuple[int, int]]:
        """The same of a log that begins and ends at these moments (ms)."""
        return periods(self.options, first, last)

    def files(self) -> list[Path]:
        """The files of the log; none where it is a frame."""
        return data_files(self._reader.data) if isinstance(self._reader.data, Path) else []

    def inputs(self, known: Sequence[InputFile]) -> tuple[InputFile, ...]:
        """The files of the log, or its frame, and those of its tables."""
        if isinstance(self._reader.data, Path):
            log = super().inputs(known)
        elif isinstance(self._reader.data, TableSnapshot):
            log = (self._reader.data.described(),)
        else:
            log = (describe_frame(self._reader.raw_chunks()),)
        return log + self._tables.inputs(known)

    def refuse_rewritten(self, known: Sequence[InputFile]) -> None:
        """Refuse a table's snapshot that does not follow from the one that is known."""
        if isinstance(self._reader.data, TableSnapshot):
            self._reader.data.refuse_rewritten(one for one in known if not one.table)

    def items(self) -> pl.DataFrame | None:
        """What the table of items says, or the rows of the log."""
        return self._tables.items.read()

    def users(self) -> pl.DataFrame | None:
        """What the table of users says, or the rows of the log."""
        return self._tables.users.read()

    def item_embeddings(self) -> Iterator[pl.DataFrame]:
        """The column of embeddings, where there is one."""
        return self._tables.items.embeddings()

    def events(self) -> Iterator[pl.DataFrame]:
        """The log, chunk by chunk."""
        return self._noted(self._chunks())

    def event_blocks(self, rows: int) -> Sequence[LogBlock | None]:
        """Files, and stretches of Parquet files; one whole where an order is to be found first."""
        if self.times == ORDER or not isinstance(self._reader.data, Path):
            return (None,)
        return self._reader.blocks(rows)

    def events_of(self, block: LogBlock | None) -> Iterator[pl.DataFrame]:
        """The chunks of a piece."""
        return self.events() if block is None else self._noted(self._reader.read(block))

    def learned(self) -> _Found:
        """Actions, whether there are dwell times, and the first and last moments."""
        return self._found

    def learn(self, learned: _Found) -> None:
        """Know what another process has found in a piece."""
        self._found = self._found.joined(learned)

    def requests(self) -> Iterator[pl.DataFrame]:
        """Nothing: the rows follow from the events."""
        return iter(())

    def requests_from(self, events: pl.DataFrame) -> pl.DataFrame | None:
        """One row per impression of ``events``, with labels; None where they have an order only."""
        if self.times == ORDER:
            return None
        return derive_rows(events, {task: self._window(task) for task in self.tasks})

    @property
    def label_window(self) -> int | None:  # type: ignore[override]
        """The longest attribution, in ms; None where there are no rows."""
        if self.times == ORDER:
            return None
        options = self.options
        longest = max([options.attribution_hours, *options.task_hours.values()])
        return round(longest * MILLISECONDS_PER_HOUR)

    def _window(self, task: Task) -> int:
        hours = self.options.task_hours.get(task.name, self.options.attribution_hours)
        return round(hours * MILLISECONDS_PER_HOUR)

    def _noted(self, chunks: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        found = self._found
        for chunk in chunks:
            good, _ = split_rows(chunk, self.actions.names)
            if not good.is_empty():
                found = found.joined(_Found.of(good))
            yield chunk
        self._found = found

    def _chunks(self) -> Iterator[pl.DataFrame]:
        """The log as it is read, at pseudo times where it is not split by time."""
        if self.times == MOMENTS:
            return iter(self._reader)
        return ordered_log(self._reader, self.actions, self._split_of, self.split_bounds)

    def _split_of(self, user: pl.Series, counted: pl.Series) -> pl.Series:
        """The split of every event, a user's events in their order."""
        options = self.options
        if options.split == BY_LAST:
            return last_events_apart(user, counted, options.last_events)
        users = user.unique(maintain_order=True)
        apart = users_apart(users, options.choose_users, options.report_users)
        split_of = pl.concat(
            pl.DataFrame({"user": of, "split": pl.repeat(str(split), len(of), eager=True)})
            for split, of in apart.items()
        )
        joined = user.to_frame("user").join(split_of, on="user", how="left", maintain_order="left")
        return joined["split"]

    def _survey(self) -> None:
        if not self._found.actions:
            for _ in self.events():
                pass


def _refuse_other_tasks(options: LogOptions, actions: ActionTypes) -> None:
    """Refuse hours of what is no task.

    Raises:
        ConfigError: with the nearest name.
    """
    for name in options.task_hours:
        if name in actions.explicit:
            continue
        meant = options.actions.get(name)
        near = [meant] if meant in actions.explicit else []
        near = near or difflib.get_close_matches(name, actions.explicit, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(actions.explicit)}."
        raise ConfigError(f"options.task_hours.{name}: {name} is no action to predict; {hint}")


def derive_rows(events: pl.DataFrame, windows: Mapping[Task, int]) -> pl.DataFrame:
    """Request rows of the impressions in ``events``; where the log says when they were requested,
    with the moment each was shown.

    Args:
        events: every event of some users, columns of the interaction log.
        windows: per task whose label to derive the longest time in ms from an impression to an
            action that counts for it, inclusive.
    """
    impressions = (
        events.filter(pl.col(Column.ACTION_TYPE) == IMPRESSION)
        .sort(Column.TIMESTAMP, maintain_order=True)
        .with_row_index(_ROW)
    )
    keys = [Column.USER, Column.ITEM]
    shown = impressions.select(*keys, Column.TIMESTAMP, _ROW)
    labels = []
    for task, window in windows.items():
        if task.kind is TaskKind.REGRESSION:
            labels.append(pl.col(Column.DWELL_TIME).alias(task.column))
            continue
        actions = (
            events.filter(pl.col(Column.ACTION_TYPE) == task.name)
            .select(*keys, Column.TIMESTAMP)
            .sort(Column.TIMESTAMP)
        )
        attributed = actions.join_asof(
            shown,
            on=Column.TIMESTAMP,
            by=keys,
            strategy="backward",
            tolerance=window,
            check_sortedness=False,  # sorted above; polars cannot tell within groups
        )
        positive = attributed[_ROW].drop_nulls().unique()
        labels.append(pl.col(_ROW).is_in(positive.implode()).cast(pl.Float32).alias(task.column))
    request_time = pl.col(_request_time_column(events))
    is_requested = Column.REQUEST_TIME in events.columns
    return impressions.select(
        *keys,
        request_time.alias(Column.REQUEST_TIME),
        *([pl.col(Column.TIMESTAMP).alias(SHOWN_AT)] if is_requested else []),
        *labels,
        Column.SURFACE,
        Column.MEDIA_TYPE,
        hour_of_day(request_time),
        pl.col(Column.VIDEO_DURATION).log1p(),
    )


def hour_of_day(time: pl.Expr, time_zone: str = "UTC") -> pl.Expr:
    """The hour of a time in ms, on the clock of ``time_zone``, as a feature."""
    moment = pl.from_epoch(time, "ms").dt.replace_time_zone("UTC")
    return moment.dt.convert_time_zone(time_zone).dt.hour().alias(HOUR_OF_DAY.name)


def _request_time_column(events: pl.DataFrame) -> str:
    return Column.REQUEST_TIME if Column.REQUEST_TIME in events.columns else Column.TIMESTAMP
