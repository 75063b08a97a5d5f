"""Hits@K, NDCG@K and MRR from ranks, with bootstrap intervals over users and over items.

K may exceed the number of candidates: then every target among them is a hit, and a target outside
the corpus is still a miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.ranking import OUTSIDE_CORPUS, Ranks

#: What :class:`RetrievalMetric` can be.
METRIC_NAMES = ("hits", "ndcg", "mrr")


class Unit(StrEnum):
    """What the bootstrap draws: all queries of a user, or all queries with the same target.

    An interval over users says what other users would have given on these items. Where few items
    are most targets, as on a front page, it says nothing of other days, which have other items;
    the interval over items does.
    """

    USER = "user"
    ITEM = "target"


@dataclass(frozen=True)
class RetrievalMetric:
    """A mean over queries of what a rank is worth; each query has one target.

    Attributes:
        name: ``hits``, ``ndcg`` or ``mrr``.
        k: ranks beyond it are worth nothing; None for ``mrr``.
    """

    name: str
    k: int | None = None

    def __post_init__(self) -> None:
        known = self.name in METRIC_NAMES
        if (
            not known
            or (self.name == "mrr") != (self.k is None)
            or (self.k is not None and self.k < 1)
        ):
            raise ConfigError(
                f"{self} is no retrieval metric; known are hits@K and ndcg@K with K at least 1, "
                "and mrr."
            )

    @classmethod
    def parse(cls, text: str) -> RetrievalMetric:
        """The metric that ``hits@10``, ``ndcg@10`` or ``mrr`` names."""
        name, _, k = text.partition("@")
        try:
            return cls(name, int(k) if k else None)
        except ValueError as error:
            raise ConfigError(f"{text} is no metric: {k} is no number of items.") from error

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    def gains(self, rank: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each rank [n] is worth, [n].

        With one target a query: ``hits@K`` is 1 and ``ndcg@K`` is ``1 / log2(1 + rank)`` for a
        rank of at most K; ``mrr`` is ``1 / rank``, 0 outside the corpus.
        """
        place = rank.astype(np.float64)
        within = rank <= self.k if self.k is not None else rank != OUTSIDE_CORPUS
        if self.name == "hits":
            return within.astype(np.float64)
        worth = 1 / np.log2(1 + place) if self.name == "ndcg" else 1 / place
        return np.where(within, worth, 0.0)

    def at_random(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """What a target is worth on average that may be at any place among n candidates, [n].

        Args:
            candidates: number of each query's candidates, its target among them, or
                :data:`OUTSIDE_CORPUS` where that is none of them and worth nothing.
        """
        inside = candidates != OUTSIDE_CORPUS
        count = np.where(inside, candidates, 1)
        summed = np.cumsum(self.gains(np.arange(1, count.max(initial=1) + 1)))
        return np.where(inside, summed[count - 1] / count, 0.0)


@dataclass(frozen=True)
class Measured:
    """The metrics of some scorers, from the same draws.

    Attributes:
        values: by scorer and metric, the mean over queries; NaN without queries.
        differences: by scorer and metric, the first scorer's value minus this one's.
    """

    values: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]


def measure_together(
    ranks: Mapping[str, Ranks],
    metrics: Sequence[RetrievalMetric],
    bootstrap: Bootstrap | None = None,
    unit: Unit = Unit.USER,
) -> Measured:
    """Every metric of several scorers on identical queries, and what the first has more.

    Args:
        ranks: of n queries, by scorer.
        metrics: what to measure.
        bootstrap: how units are drawn, for all scorers at once.
        unit: what is drawn.

    Raises:
        DataError: they were not measured on the same queries, users and targets.
    """
    bootstrap = bootstrap or Bootstrap()
    sums = _sums_together(list(ranks.values()), metrics, unit)  # [units, 1 + scorers · metrics]

    def means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            found = sums[:, 1:] / sums[:, :1]
        return found.reshape(len(found), len(ranks), len(metrics))

    values, drawn = means(sums.sum(axis=0, keepdims=True)), means(bootstrap.sums(sums))

    def intervals(
        values: NDArray[np.float64], drawn: NDArray[np.float64]
    ) -> dict[str, dict[str, Interval]]:
        return {
            name: {
                str(metric): bootstrap.interval(float(values[0, row, m]), drawn[:, row, m])
                for m, metric in enumerate(metrics)
            }
            for row, name in enumerate(ranks)
        }

    return Measured(
        intervals(values, drawn), intervals(values[:, :1] - values, drawn[:, :1] - drawn)
    )


def effective_items(ranks: Ranks) -> float:
    """Number of equally frequent targets of the same concentration, ``(Σ n)² / Σ n²`` over the
    items' numbers n of queries; NaN without queries.
    """
    count = np.unique(ranks.target, return_counts=True)[1].astype(np.float64)
    return float(count.sum() ** 2 / (count**2).sum()) if len(count) else np.nan


def _sums_together(
    ranks: Sequence[Ranks], metrics: Sequence[RetrievalMetric], unit: Unit
) -> NDArray[np.float64]:
    """Queries, and gains of every scorer and metric, by unit; [units, 1 + scorers · metrics]."""
    first = ranks[0]
    for other in ranks[1:]:
        _check_same_queries(first, other)
    gains = [metric.gains(one.rank) for one in ranks for metric in metrics]
    units, position = np.unique(getattr(first, unit.value), return_inverse=True)
    columns = [np.ones(len(first)), *gains]
    return np.stack([np.bincount(position, column, len(units)) for column in columns], axis=1)


def _check_same_queries(test: Ranks, control: Ranks) -> None:
    for name in ("query", "user", "target"):
        ours, theirs = getattr(test, name), getattr(control, name)
        if not np.array_equal(ours, theirs):
            raise DataError(
                f"The ranks cannot be compared: their {name} columns differ ({len(ours)} against "
                f"{len(theirs)} queries). Rank both on the same split of the same prepared data "
                "set, batches with the same seed."
            )
