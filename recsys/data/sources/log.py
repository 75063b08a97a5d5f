"""Any interaction log in the contract: its impressions are the request rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.actions import ActionNames
from recsys.data.contract.file_names import data_files
from recsys.data.contract.input_files import InputFile, describe_frame
from recsys.data.contract.log import LogBlock, LogReader, split_rows
from recsys.data.contract.log_parts import name_of
from recsys.data.contract.manifest import MOMENTS, ORDER
from recsys.data.contract.schema import (
    IMPRESSION,
    MILLISECONDS_PER_HOUR,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
)
from recsys.data.contract.table_snapshots import TableSnapshot, with_snapshot
from recsys.data.contract.time_columns import TimeFormat
from recsys.data.sources.base import Source
from recsys.data.sources.log_options import (
    BY_LAST,
    BY_TIME,
    LogOptions,
    refuse_other_tasks,
)
from recsys.data.sources.log_order import ordered_log
from recsys.data.sources.log_rows import (
    HOUR_OF_DAY,
    WATCH_TIME,
    derive_rows,
    request_time_column,
)
from recsys.data.sources.log_tables import LogTables
from recsys.data.sources.order import FIT_DAYS, last_events_apart, order_bounds, users_apart
from recsys.data.sources.periods import periods


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
        times = rows[request_time_column(rows)]
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
        refuse_other_tasks(self.options, self.actions)
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
