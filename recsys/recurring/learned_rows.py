"""Rows that a service's stages learn from: candidates that were scored, or items that were shown.

Items of after the preparation are in no row.

Legend: R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.data.batches.context import context_arrays
from recsys.data.contract.ledger import FIRST, MOMENT, SELECTED, USER, VALUE, VALUE_RANK
from recsys.data.contract.schema import (
    MILLISECONDS_PER_HOUR,
    PROPENSITY,
    Column,
    FeatureKind,
    FeatureSide,
)
from recsys.data.sources.ledger_rows import POSITION, READ, ROW, scored_rows, shown_rows
from recsys.data.sources.log_rows import HOUR_OF_DAY, hour_of_day
from recsys.recurring.experience import ROW_ITEM, ROW_USER, Experience

#: What the first stage that was served said of a candidate; or the order of the sources.
SERVED, _FUSED = "served", "fused"
#: So long after a list what a user does with an item of it is taken for what came of the list.
_ATTRIBUTED_HOURS = 24
#: Columns of a list.
_OF_LIST = ("item", POSITION, PROPENSITY, VALUE)
_NAMED = {Column.USER.value: ROW_USER, Column.ITEM.value: ROW_ITEM}


def scored(of: Experience) -> list[pl.DataFrame]:
    """What the second stage scored: ``user``, ``request_time``, ``item``, labels and ``served``."""
    parts = []
    for requests, tasks in of.requests(*READ, FIRST, _FUSED):
        by = FIRST if FIRST in requests.columns else _FUSED
        rows = scored_rows(requests.select(*READ), _no_events(requests), tasks)
        said = requests.select(USER, MOMENT, "item", pl.col(by).alias(SERVED)).explode(
            "item", SERVED
        )
        keys = {USER: Column.USER, MOMENT: Column.REQUEST_TIME, "item": Column.ITEM}
        joined = rows.join(said.rename(keys), on=list(keys.values()), maintain_order="left")
        found = joined.rename(_NAMED).select(
            ROW_USER,
            Column.REQUEST_TIME,
            ROW_ITEM,
            *(pl.col(task.column) for task in (SELECTED, VALUE_RANK)),
            pl.col(SERVED).cast(pl.Float64).fill_nan(None).fill_null(-np.inf),
        )
        parts.append(found.filter(of.is_own))
    return parts


def shown(of: Experience) -> list[pl.DataFrame]:
    """What was shown of lists, labelled by what its user did: the tasks of the data set.

    The context is what can be known of a request that is over: the surface where its items were
    seen, their places, and the hour of the day; what else it was asked with is unknown.
    """
    lists = [_listed(requests) for requests, _ in of.requests(USER, MOMENT, *_OF_LIST)]
    if not lists or not any(one.height for one in lists):
        return []
    listed = pl.concat(lists)
    events = _attributed(of, listed)
    manifest = of.dataset.manifest
    rows = shown_rows(listed, events, manifest.tasks).unique(ROW, keep="first", maintain_order=True)
    rows = rows.with_columns(hour_of_day(pl.col(Column.REQUEST_TIME)))
    context = [one.name for one in manifest.features if one.side is FeatureSide.CONTEXT]
    known = rows.select(n for n in (Column.SURFACE, POSITION, HOUR_OF_DAY.name) if n in context)
    arrays = context_arrays(of.dataset, known, rows.height)
    encoded = [
        pl.Series(one.name, array[:, place])
        for kind, array in zip((FeatureKind.CATEGORICAL, FeatureKind.DENSE), arrays, strict=True)
        for place, one in enumerate(manifest.select(FeatureSide.CONTEXT, kind))
    ]
    labels = [task.column for task in manifest.tasks]
    kept = rows.select(*ROW, *labels, pl.col(PROPENSITY).fill_null(np.nan))
    return [kept.with_columns(encoded).rename(_NAMED).filter(of.is_own)]


def _listed(requests: pl.DataFrame) -> pl.DataFrame:
    """The lists of requests, without the other candidates; a row per request."""
    rows = requests.explode(*_OF_LIST).filter(pl.col(POSITION) > 0)
    return rows.group_by(USER, MOMENT, maintain_order=True).agg(pl.all())


def _attributed(of: Experience, listed: pl.DataFrame) -> pl.DataFrame:
    """Events of items that a list of their user had before, with the moment of the newest one."""
    manifest = of.dataset.manifest
    places = listed.select(USER, MOMENT, "item", POSITION).explode("item", POSITION)
    joined = (
        of.events()
        .with_columns(pl.col(ROW_USER, ROW_ITEM, "timestamp").cast(pl.Int64))
        .sort("timestamp")
        .join_asof(
            places.rename({USER: ROW_USER}).sort(MOMENT),
            left_on="timestamp",
            right_on=MOMENT,
            by=[ROW_USER, ROW_ITEM],
            tolerance=_ATTRIBUTED_HOURS * MILLISECONDS_PER_HOUR,
            check_sortedness=False,  # it cannot be, within users and items
        )
    )
    return joined.filter(pl.col(MOMENT).is_not_null()).select(
        pl.col(ROW_USER).alias(Column.USER),
        pl.col(ROW_ITEM).alias(Column.ITEM),
        pl.col(MOMENT).alias(Column.REQUEST_TIME),
        _named("action_type", manifest.action_types).alias(Column.ACTION_TYPE),
        _named("surface", manifest.surfaces).alias(Column.SURFACE),
        (pl.col(POSITION) - 1).alias(POSITION),
        pl.col("dwell_time").fill_nan(None).alias(Column.DWELL_TIME),
        pl.col("video_duration").fill_nan(None).alias(Column.VIDEO_DURATION),
        pl.lit(None, pl.Float32).alias(PROPENSITY),
    )


def _named(column: str, names: Sequence[str]) -> pl.Expr:
    codes = list(range(len(names)))
    return pl.col(column).cast(pl.Int64).replace_strict(codes, list(names), default=None)


def _no_events(requests: pl.DataFrame) -> pl.DataFrame:
    """What would say on which surface each request was; a first stage does not read it."""
    schema: dict[str, pl.DataType] = {
        Column.USER: requests.schema[USER],
        Column.REQUEST_TIME: requests.schema[MOMENT],
        Column.ACTION_TYPE: pl.String(),
        Column.SURFACE: pl.String(),
        PROPENSITY: pl.Float32(),
    }
    return pl.DataFrame(schema=schema)
