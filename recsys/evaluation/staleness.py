"""How retrieval decays: user embeddings that are days old, and models that are days old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.schema import MILLISECONDS_PER_DAY
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.queries import EvaluationQueries
from recsys.evaluation.ranking import CandidateSet, DotProductScorer, Ranks, rank_targets
from recsys.evaluation.retrieval_metrics import (
    RetrievalMetric,
    measure,
    relative_difference,
    sums_by_user,
)

#: ``embed(queries, as_of)`` → user embeddings [Q, W] from the events strictly before ``as_of``
#: [Q] ms. :meth:`EvaluationQueries.as_of` cuts the histories.
Embed = Callable[[EvaluationQueries, NDArray[np.int64]], Tensor]

#: Figure 10 and section 6.2 of the paper.
HITS_AT_20 = RetrievalMetric("hits", 20)


@dataclass(frozen=True)
class DayPoint:
    """One point of a curve over days.

    Attributes:
        day: days the embedding, or the model, is old.
        queries: number measured.
        users: they belong to.
        value: the metric.
        change: percent against day 0; NaN where the metric of day 0 is 0.
    """

    day: int
    queries: int
    users: int
    value: Interval
    change: Interval


def rank_by_staleness(
    embed: Embed,
    posts: Tensor,
    queries: EvaluationQueries,
    candidates: Mapping[str, CandidateSet],
    days: Sequence[int] = tuple(range(7)),
) -> dict[int, dict[str, Ranks]]:
    """Ranks of user embeddings made from the history as of d days before each query (figure 10).

    Queries and candidates are the same at every d: the posts seen up to the query itself are
    removed, only the embedding is stale.

    Args:
        embed: the user tower.
        posts: [V, W].
        queries: Q queries.
        candidates: candidate sets of these queries, by name.
        days: the d measured.

    Returns:
        By d, the ranks by name of the candidate set.
    """
    return {
        day: rank_targets(
            DotProductScorer(embed(queries, queries.time - day * MILLISECONDS_PER_DAY), posts),
            queries,
            candidates,
            len(posts),
        )
        for day in days
    }


def staleness_curve(
    by_day: Mapping[int, Ranks],
    metric: RetrievalMetric = HITS_AT_20,
    bootstrap: Bootstrap | None = None,
) -> list[DayPoint]:
    """The metric by age of the user embedding, its change paired with age 0.

    Args:
        by_day: ranks of one candidate set by age in days; age 0 is one of them.
        metric: what to measure.
        bootstrap: how users are drawn.
    """
    return [
        DayPoint(
            day,
            len(ranks),
            len(np.unique(ranks.user)),
            measure(ranks, [metric], bootstrap)[str(metric)],
            relative_difference(ranks, by_day[0], metric, bootstrap),
        )
        for day, ranks in sorted(by_day.items())
    ]


def frozen_at(queries: EvaluationQueries, last_ms: int) -> NDArray[np.int64]:
    """``as_of`` of embeddings computed once, when the training period ended at ``last_ms``; [Q].

    With ``queries.time`` instead, the embeddings are fresh and the model alone grows old.
    """
    return np.minimum(queries.time, last_ms)


def curve_over_days(
    ranks: Ranks,
    time: NDArray[np.int64],
    last_ms: int,
    metric: RetrievalMetric = HITS_AT_20,
    bootstrap: Bootstrap | None = None,
) -> list[DayPoint]:
    """The metric by day after the end of training (section 6.2); each day has its own queries.

    Args:
        ranks: of n queries.
        time: [n], moments of these queries, ms.
        last_ms: end of the training period; day 0 starts here.
        metric: what to measure.
        bootstrap: how users are drawn, for both days of a change at once.

    Returns:
        A point per day that has queries; changes are against the first of them.
    """
    bootstrap = bootstrap or Bootstrap()
    day_of_query = (time - last_ms) // MILLISECONDS_PER_DAY
    gains = metric.gains(ranks.rank)
    days = np.unique(day_of_query)
    points = []
    for day in days:
        here, first = day_of_query == day, day_of_query == days[0]
        columns = np.stack([here, gains * here, first, gains * first])
        change = _change_between_days(sums_by_user(ranks.user, columns), bootstrap)
        of_day = ranks.only(here)
        value = measure(of_day, [metric], bootstrap)[str(metric)]
        points.append(DayPoint(int(day), len(of_day), len(np.unique(of_day.user)), value, change))
    return points


def _change_between_days(per_user: NDArray[np.float64], bootstrap: Bootstrap) -> Interval:
    """Percent change of a mean; per user its queries and gain, then those of day 0, [users, 4]."""

    def change(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (sums[:, 1] / sums[:, 0]) / (sums[:, 3] / sums[:, 2])
        return np.where(np.isfinite(ratio), 100 * (ratio - 1), np.nan)

    value = change(per_user.sum(axis=0, keepdims=True))[0]
    return bootstrap.interval(float(value), change(bootstrap.sums(per_user)))
