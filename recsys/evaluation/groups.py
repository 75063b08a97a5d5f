"""Groups of queries that are measured apart: by their history, by the age of their item, by day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.evaluation.queries import EvaluationQueries

#: A marginal user has at most this many engagements before the query (NxtPost §4.4).
MARGINAL_EVENTS = 4

#: Names of the groups by history and by item; a day's is ``day_<n>``.
NO_EVENT, FEW_EVENTS, MARGINAL = "no_event", "1_to_4_events", "0_to_4_events"
SEEN_ITEMS, UNSEEN_ITEMS = "seen_posts", "unseen_posts"
#: Queries of one task: ``task_<action>``.
TASK_GROUP = "task_"
GROUPS = (NO_EVENT, FEW_EVENTS, MARGINAL, SEEN_ITEMS, UNSEEN_ITEMS)


@dataclass(frozen=True, eq=False)
class QueryGroup:
    """Some of Q queries.

    Attributes:
        name: in the names of metrics.
        description: which queries, for the protocol of a metric.
        chosen: [Q] whether a query is one of them.
        also_all: whether it is measured too where it has every query.
    """

    name: str
    description: str
    chosen: NDArray[np.bool_]
    also_all: bool = False


def history_groups(queries: EvaluationQueries) -> list[QueryGroup]:
    """Cold-start users, marginal users, and both, by the engagements before the query."""
    events = queries.history_events
    most = MARGINAL_EVENTS
    return [
        QueryGroup(NO_EVENT, "queries without an engagement before", events == 0),
        QueryGroup(
            FEW_EVENTS,
            f"queries with 1 to {most} engagements before",
            (events > 0) & (events <= most),
        ),
        QueryGroup(MARGINAL, f"queries with 0 to {most} engagements before", events <= most),
    ]


def item_groups(queries: EvaluationQueries, fit_items: NDArray[np.bool_]) -> list[QueryGroup]:
    """Queries whose item a model could know from the fit period, and the others.

    Args:
        queries: Q queries.
        fit_items: [V], the items engaged with by anyone before the end of the fit period.
    """
    seen = fit_items[queries.target]
    return [
        QueryGroup(SEEN_ITEMS, "queries of items first engaged with in the fit period", seen),
        QueryGroup(UNSEEN_ITEMS, "queries of items first engaged with after the fit period", ~seen),
    ]


def day_groups(queries: EvaluationQueries, fit_end: int) -> list[QueryGroup]:
    """Queries by the day after ``fit_end``, ms, the first being day 0 (NxtPost §6.2)."""
    day = (queries.time - fit_end) // MILLISECONDS_PER_DAY
    return [
        QueryGroup(f"day_{number}", f"queries of day {number} after the fit period", day == number)
        for number in np.unique(day).tolist()
    ]
