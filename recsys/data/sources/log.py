"""Any interaction log in the contract: its impressions are the request rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import polars as pl

from recsys.core.bounds import Count, Hours, Number, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.files import DEFAULT_CHUNK_ROWS, data_files
from recsys.data.contract.input_files import InputFile, describe_frame
from recsys.data.contract.log import LogReader, split_rows
from recsys.data.contract.schema import (
    ACTION_TYPES,
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
from recsys.data.sources.base import Source
from recsys.data.sources.periods import periods

WATCH_TIME = Task("watch_time", TaskKind.REGRESSION)
HOUR_OF_DAY = Feature("hour_of_day", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)

_ROW = "row"


@dataclass(frozen=True)
class LogOptions(Settings):
    """How a log is read.

    Attributes:
        columns: column of the contract to the name it has in the log, where they differ.
        actions: known action type to the name it has in the log, where they differ.
        tasks: action types to predict, ``watch_time`` among them; None for all that the log has.
        attribution_hours: an action counts for an impression at most this long before it.
        fit_until: end of the fit period, for example ``2024-05-01`` (UTC); None for a fraction.
        choose_until: end of the choose period, likewise.
        choose_days: whole UTC days before those of ``report_days`` that are the choose period; None
            for a fraction.
        report_days: whole UTC days at the end of the log that are the report period, likewise.
        choose_fraction: share of the log's time that is the choose period if no bound is given.
        report_fraction: share of the log's time, at its end, that is the report period.
        chunk_rows: rows read at a time.
    """

    columns: dict[str, str] = field(default_factory=dict)
    actions: dict[str, str] = field(default_factory=dict)
    tasks: list[str] | None = None
    attribution_hours: Hours = 24.0
    fit_until: str | None = None
    choose_until: str | None = None
    choose_days: Count | None = None
    report_days: Count | None = None
    choose_fraction: Annotated[float, Number(above=0, below=1)] = 0.1
    report_fraction: Annotated[float, Number(above=0, below=1)] = 0.2
    chunk_rows: Count = DEFAULT_CHUNK_ROWS


class LogSource(Source):
    """Reads a log; tasks and split bounds are known once its events have been read.

    Rows: every impression is a row; rows of one user and one ``request_time`` (the timestamp
    where the log has none) form a request. The label of a task is 1 where the user took that
    action on that item at or after the impression, within the attribution window; an action
    counts for the latest impression before it. ``watch_time`` is the impression's dwell time. A
    label's event lies at or after the request, so no history that is cut there holds it.

    Args:
        data: a Parquet or CSV file, a folder of them, or a polars frame.
        options: how the log is read.
    """

    name = "log"
    features = (
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
        self._reader = LogReader(
            data, self.options.columns, self.options.actions, self.options.chunk_rows
        )
        self._actions: set[str] = set()
        self._has_dwell = False
        self._first: int | None = None
        self._last = 0

    @property
    def tasks(self) -> tuple[Task, ...]:  # type: ignore[override]
        """The wanted tasks, or every action of the log and, where it has any, dwell time."""
        self._survey()
        wanted = self.options.tasks
        if wanted is None:
            wanted = [name for name in ACTION_TYPES if name in self._actions - {IMPRESSION}]
            wanted += [WATCH_TIME.name] * self._has_dwell
        if not wanted and self.options.tasks is not None:
            raise ConfigError(
                "options.tasks is empty; name actions to predict, or leave it away for all that "
                "the log has."
            )
        for name in wanted:
            if wanted.count(name) > 1:
                raise ConfigError(f"options.tasks: {name} stands there twice; name it once.")
            if name != WATCH_TIME.name and name not in ACTION_TYPES[1:]:
                raise ConfigError(
                    f"options.tasks: {name} is no task; tasks are {', '.join(ACTION_TYPES[1:])} "
                    f"and {WATCH_TIME.name}."
                )
        return tuple(WATCH_TIME if name == WATCH_TIME.name else Task(name) for name in wanted)

    @property
    def split_bounds(self) -> dict[str, tuple[int, int]]:  # type: ignore[override]
        """The configured bounds, or fractions of the time the log covers."""
        self._survey()
        if self._first is None:
            raise DataError("the log has no row that can be used; see the reasons in rejected/.")
        return self.bounds_over(self._first, self._last)

    def bounds_over(self, first: int, last: int) -> dict[str, tuple[int, int]]:
        """The same of a log that begins and ends at these moments (ms)."""
        return periods(self.options, first, last)

    def files(self) -> list[Path]:
        """The files of the log; none where it is a frame."""
        return data_files(self._reader.data) if isinstance(self._reader.data, Path) else []

    def inputs(self, known: Sequence[InputFile]) -> tuple[InputFile, ...]:
        """The files of the log, or its frame."""
        if isinstance(self._reader.data, Path):
            return super().inputs(known)
        return (describe_frame(self._reader.raw_chunks()),)

    def events(self) -> Iterator[pl.DataFrame]:
        """The log, chunk by chunk."""
        actions: set[str] = set()
        for chunk in self._reader:
            good, _ = split_rows(chunk)
            if not good.is_empty():
                actions.update(good[Column.ACTION_TYPE].unique())
                self._has_dwell |= good[Column.DWELL_TIME].null_count() < good.height
                times = good[_request_time_column(good)]
                first, last = int(times.min()), int(good[Column.TIMESTAMP].max())  # type: ignore[arg-type]
                self._first = first if self._first is None else min(self._first, first)
                self._last = max(self._last, last)
            yield chunk
        self._actions = actions

    def requests(self) -> Iterator[pl.DataFrame]:
        """Nothing: the rows follow from the events."""
        return iter(())

    def requests_from(self, events: pl.DataFrame) -> pl.DataFrame:
        """One row per impression of ``events``, with labels."""
        return derive_rows(events, self.tasks, self.label_window)

    @property
    def label_window(self) -> int:  # type: ignore[override]
        """The longest attribution, in ms."""
        return round(self.options.attribution_hours * MILLISECONDS_PER_HOUR)

    def _survey(self) -> None:
        if not self._actions:
            for _ in self.events():
                pass


def derive_rows(events: pl.DataFrame, tasks: tuple[Task, ...], window: int) -> pl.DataFrame:
    """Request rows of the impressions in ``events``; where the log says when they were requested,
    with the moment each was shown.

    Args:
        events: every event of some users, columns of the interaction log.
        tasks: which labels to derive.
        window: longest time in ms from an impression to an action that counts for it, inclusive.
    """
    impressions = (
        events.filter(pl.col(Column.ACTION_TYPE) == IMPRESSION)
        .sort(Column.TIMESTAMP, maintain_order=True)
        .with_row_index(_ROW)
    )
    keys = [Column.USER, Column.ITEM]
    shown = impressions.select(*keys, Column.TIMESTAMP, _ROW)
    labels = []
    for task in tasks:
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
