"""Request rows that follow from the impressions of a log."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recsys.data.contract.schema import (
    IMPRESSION,
    SHOWN_AT,
    Column,
    Feature,
    FeatureKind,
    FeatureSide,
    Task,
    TaskKind,
)

WATCH_TIME = Task("watch_time", TaskKind.REGRESSION)
HOUR_OF_DAY = Feature("hour_of_day", FeatureSide.CONTEXT, FeatureKind.CATEGORICAL)

_ROW = "row"


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
    request_time = pl.col(request_time_column(events))
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


def request_time_column(events: pl.DataFrame) -> str:
    """The column that says when a row was requested: where none does, when it was shown."""
    return Column.REQUEST_TIME if Column.REQUEST_TIME in events.columns else Column.TIMESTAMP
