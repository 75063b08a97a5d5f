"""Request rows of a funnel's requests: what was shown, or what the second stage scored.

Legend: N candidates over all requests, K tasks of the second stage.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl

from recsys.core.errors import DataError
from recsys.data.contract.ledger import (
    GAP_HOURS,
    MOMENT,
    SECOND,
    SELECTED,
    USER,
    VALUE,
    VALUE_RANK,
)
from recsys.data.contract.schema import IMPRESSION, PROPENSITY, Column, Task, TaskKind

#: Place in a list: of a candidate from 1, 0 for none; of an impression from 0.
POSITION = "position"
#: What says which request a row is of, and with the item which row it is.
_REQUEST = (Column.USER, Column.REQUEST_TIME)
ROW = (*_REQUEST, Column.ITEM)
#: Columns of a ledger that hold a list of N candidates.
_OF_CANDIDATES = ("item", POSITION, PROPENSITY, VALUE)
#: Columns of a ledger that rows are made of.
READ = (USER, MOMENT, *_OF_CANDIDATES, SECOND)
#: The task that items without a duration have no label of.
_COMPLETE = "video_complete"


def scored_rows(requests: pl.DataFrame, events: pl.DataFrame, tasks: int) -> pl.DataFrame:
    """A row per candidate that the second stage scored.

    ``label_selected`` is 1 of those that came into the list by their value: one that was drawn for
    its place was not selected. ``label_value_rank`` is the share of the request's other scored
    candidates that are worth less, 1 for the best; null where a candidate has no value.

    Args:
        requests: of a ledger, columns ``READ``.
        events: that followed, for the surface of each request; null where nothing was shown.
        tasks: K.

    Raises:
        DataError: there is another number of scores than K of every candidate.

    Example: of values 5, 2, 1, of which the second was drawn for the list beside the first,
    selected is 1, 0, 0 and the rank 1, 0.5, 0.
    """
    candidates = _candidates(requests)
    scores = requests[SECOND].explode().to_numpy()
    if len(scores) != tasks * candidates.height:
        raise DataError(
            f"a ledger has {len(scores):,} scores of the second stage of {candidates.height:,} "
            f"candidates, not {tasks} of each: it is damaged, or its description another's."
        )
    asked = ~np.isnan(scores.reshape(-1, tasks)).all(axis=1)
    value = pl.col(VALUE)
    less = value.rank("min").over(_REQUEST) - 1
    others = value.count().over(_REQUEST) - 1
    drawn = pl.col(PROPENSITY).is_not_null()
    rank = pl.when(others > 0).then(less / others).when(value.is_not_null()).then(1.0)
    labelled = candidates.filter(asked).select(
        *ROW,
        ((pl.col(POSITION) > 0) & ~drawn).cast(pl.Float32).alias(SELECTED.column),
        rank.cast(pl.Float32).alias(VALUE_RANK.column),
    )
    surfaces = _impressions(events).select(*_REQUEST, Column.SURFACE).unique(_REQUEST)
    return labelled.join(surfaces, on=_REQUEST, how="left", maintain_order="left")


def shown_rows(requests: pl.DataFrame, events: pl.DataFrame, tasks: Iterable[Task]) -> pl.DataFrame:
    """A row per item of a list that its user has looked at, with its place and what came of it.

    ``propensity`` is that of the items that were drawn for their places; null for the others.

    Args:
        requests: of a ledger, columns ``READ``.
        events: that followed: impressions and actions with the moments of their requests.
        tasks: actions to predict, and those of the dwell time.
    """
    done = events.filter(pl.col(Column.ACTION_TYPE) != IMPRESSION)
    done = done.group_by(ROW).agg(pl.col(Column.ACTION_TYPE).alias("done"))
    listed = _candidates(requests).filter(pl.col(POSITION) > 0).select(*ROW, PROPENSITY)
    shown = _impressions(events).drop(PROPENSITY).join(listed, on=ROW)
    labels = []
    for task in tasks:
        label = pl.col("done").list.contains(task.name).fill_null(False).cast(pl.Float32)
        if task.kind is TaskKind.REGRESSION:
            label = pl.col(Column.DWELL_TIME)
        elif task.name == _COMPLETE:
            label = pl.when(pl.col(Column.VIDEO_DURATION).is_not_null()).then(label)
        labels.append(label.alias(task.column))
    return (
        shown.join(done, on=ROW, how="left")
        .sort(*_REQUEST, POSITION)
        .select(*ROW, *labels, Column.SURFACE, POSITION, PROPENSITY)
    )


def gap_hours(requests: pl.DataFrame) -> pl.DataFrame:
    """[N] rows: how old each candidate's scores were, 0 of those that were scored at the request.

    Args:
        requests: of a ledger; NaN, or null in its ``gap_hours`` is of what no cache had.
    """
    names = {USER: Column.USER, MOMENT: Column.REQUEST_TIME, "item": Column.ITEM}
    candidates = requests.select(USER, MOMENT, "item", GAP_HOURS).explode("item", GAP_HOURS)
    return candidates.rename(names).with_columns(pl.col(GAP_HOURS).fill_nan(0).fill_null(0))


def _candidates(requests: pl.DataFrame) -> pl.DataFrame:
    """[N] rows; NaN as null."""
    candidates = requests.select(USER, MOMENT, *_OF_CANDIDATES).explode(*_OF_CANDIDATES)
    names = {USER: Column.USER, MOMENT: Column.REQUEST_TIME, "item": Column.ITEM}
    return candidates.rename(names).with_columns(pl.col(PROPENSITY, VALUE).fill_nan(None))


def _impressions(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col(Column.ACTION_TYPE) == IMPRESSION)
