"""Popularity as a scorer, overall and recent, and its combination with another scorer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.division import in_parts
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.ranking import (
    CandidateSet,
    Scorer,
    checked_scores,
    gather_ranks,
    query_chunks,
)
from recsys.evaluation.retrieval_metrics import RetrievalMetric

#: λ of :class:`WithPopularity` that :func:`choose_weight` tries.
WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class FitPopularity:
    """The number of engagements in the fit period, the same for every query.

    Args:
        engagements: of all users.
        last_ms: end of the fit period.
        num_items: V.
    """

    def __init__(self, engagements: EngagementStore, last_ms: int, num_items: int) -> None:
        items = engagements.item[engagements.timestamp < last_ms]
        self.counts = torch.from_numpy(np.bincount(items, minlength=num_items)).float()  # [V]

    def score(self, queries: slice) -> Tensor:
        """Counts of all item indices, [q, V]."""
        return self.counts.expand(queries.stop - queries.start, -1)


class RecentPopularity:
    """The number of engagements strictly before each query, at most ``window_ms`` before it.

    Counts are carried from query to query in order of time; it is fastest where the queries of a
    chunk are close in time.

    Args:
        events: engagements of all users in order of time.
        queries: Q queries.
        num_items: V.
        window_ms: an engagement this long before the query still counts; None counts everything
            before the query.
    """

    def __init__(
        self,
        events: EventsByTime,
        queries: EvaluationQueries,
        num_items: int,
        window_ms: int | None = None,
    ) -> None:
        self.item = events.item
        self.num_items = num_items
        self.time = queries.time
        self.end = events.before(queries.time)  # [Q]
        if window_ms is None:
            self.start = np.zeros_like(self.end)
        else:
            self.start = events.before(queries.time - window_ms)

    def score(self, queries: slice) -> Tensor:
        """Counts of all item indices, [q, V]."""
        order = np.argsort(self.time[queries], kind="stable")
        scores = np.empty((len(order), self.num_items), dtype=np.float32)
        if not len(order):
            return torch.from_numpy(scores)
        starts, ends = self.start[queries], self.end[queries]
        start, end = starts[order[0]], ends[order[0]]
        counts = np.bincount(self.item[start:end], minlength=self.num_items)
        for row in order:
            np.add.at(counts, self.item[end : ends[row]], 1)
            np.subtract.at(counts, self.item[start : starts[row]], 1)
            start, end = starts[row], ends[row]
            scores[row] = counts
        return torch.from_numpy(scores)


class WithPopularity:
    """``score + λ · ln(popularity + 1)``.

    Args:
        scorer: for example a model's cosines.
        popularity: counts.
        weight: λ.
    """

    def __init__(self, scorer: Scorer, popularity: Scorer, weight: float) -> None:
        self.scorer = scorer
        self.popularity = popularity
        self.weight = weight

    def score(self, queries: slice) -> Tensor:
        """Scores of all item indices, [q, V]."""
        return self.scorer.score(queries) + self.weight * self.popularity.score(queries).log1p()


@dataclass(frozen=True)
class ChosenWeight:
    """λ and how it was chosen.

    Attributes:
        weight: the λ of the best value, the smallest of several.
        values: the metric by λ.
        metric: what was maximised, for example ``hits@10``.
        candidates: description of the candidate set.
    """

    weight: float
    values: dict[float, float]
    metric: str
    candidates: str


def choose_weight(
    scorer: Scorer,
    popularity: Scorer,
    queries: EvaluationQueries,
    candidates: CandidateSet,
    num_items: int,
    metric: RetrievalMetric,
    weights: Sequence[float] = WEIGHTS,
) -> ChosenWeight:
    """The λ of :class:`WithPopularity` that is best on the given queries, those of ``choose``.

    Both scorers are asked once for all λ.

    Args:
        scorer: scores of the queries.
        popularity: counts of the same queries.
        queries: Q queries of the choose split.
        candidates: candidate set of these queries.
        num_items: V.
        metric: what is maximised.
        weights: the grid of λ.

    Raises:
        DataError: a score is not finite.
    """

    def ranks(rows: slice) -> list[NDArray[np.int64]]:
        scores = checked_scores(scorer, rows, num_items)
        bonus = checked_scores(popularity, rows, num_items).log1p()
        return [candidates.ranks(rows, scores + weight * bonus) for weight in grid]

    grid = sorted(weights)
    found = in_parts(list(query_chunks(len(queries), num_items)), ranks, "Choosing λ")
    parts = {weight: [one[place] for one in found] for place, weight in enumerate(grid)}
    values = {
        weight: float(metric.gains(gather_ranks(queries, part, "").rank).mean())
        for weight, part in parts.items()
    }
    best = max(values, key=lambda weight: (values[weight], -weight))
    return ChosenWeight(best, values, str(metric), candidates.description)
