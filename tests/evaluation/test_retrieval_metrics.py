"""Retrieval metrics by hand, their intervals, and comparisons on identical queries."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.ranking import OUTSIDE_CORPUS, Ranks
from recsys.evaluation.retrieval_metrics import (
    RetrievalMetric,
    Unit,
    effective_items,
    measure_together,
)

QUICK = Bootstrap(resamples=200)


def ranks_of(rank: list[int], user: list[int]) -> Ranks:
    query = np.arange(len(rank))
    return Ranks(query, np.array(user), query + 100, np.array(rank), "all items")


def measure(
    ranks: Ranks, metrics: list[RetrievalMetric], bootstrap: Bootstrap | None = None
) -> dict[str, Interval]:
    return measure_together({"": ranks}, metrics, bootstrap).values[""]


RANKS = ranks_of([1, 3, 11, OUTSIDE_CORPUS], [1, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hits@1", 1 / 4),
        ("hits@3", 2 / 4),
        ("hits@10", 2 / 4),
        ("hits@1000000", 3 / 4),  # more items than the corpus has: only the one outside is missed
        ("ndcg@10", (1 + 1 / 2) / 4),  # 1 / log2(1 + 3) = 1 / 2
        ("mrr", (1 + 1 / 3 + 1 / 11) / 4),
    ],
)
def test_metrics_by_hand(name: str, expected: float) -> None:
    metric = RetrievalMetric.parse(name)
    assert str(metric) == name
    assert measure(RANKS, [metric], QUICK)[name].value == pytest.approx(expected)


@pytest.mark.parametrize("name", ["hits@1", "hits@3", "hits@10", "ndcg@2", "mrr"])
def test_chance_is_the_mean_over_every_place(name: str) -> None:
    metric = RetrievalMetric.parse(name)
    candidates = np.array([1, 4, 7, OUTSIDE_CORPUS])
    expected = [metric.gains(np.arange(1, n + 1)).mean() for n in (1, 4, 7)] + [0]
    np.testing.assert_allclose(metric.at_random(candidates), expected)
    assert len(metric.at_random(candidates[:0])) == 0


@pytest.mark.parametrize("text", ["hits", "hits@0", "hits@x", "mrr@10", "recall@10", "ndcg@-1"])
def test_what_is_no_metric(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no .*metric"):
        RetrievalMetric.parse(text)


def test_intervals_draw_whole_users() -> None:
    """Two users of one query each: a draw hits 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    metrics = [RetrievalMetric("hits", 1), RetrievalMetric("mrr")]
    measured = measure(ranks_of([1, 2], [1, 2]), metrics, QUICK)
    assert (measured["hits@1"].low, measured["hits@1"].high) == (0.0, 1.0)
    assert (measured["mrr"].low, measured["mrr"].high) == (0.5, 1.0)
    # both users have the same two queries: every draw is the whole
    measured = measure(ranks_of([1, 2, 1, 2], [7, 7, 8, 8]), metrics, QUICK)
    assert measured["hits@1"].low == measured["hits@1"].high == measured["hits@1"].value == 0.5
    # one user says nothing of how others would differ
    measured = measure(ranks_of([1, 2], [7, 7]), metrics, QUICK)
    assert measured["hits@1"].value == 0.5 and np.isnan(measured["hits@1"].low)


def test_interval_has_the_spread_of_the_linearised_ratio() -> None:
    """Delta method over users of different sizes: an independent standard error."""
    generator = np.random.default_rng(0)
    user = generator.integers(0, 150, 3000) ** 2 // 150
    ability = generator.integers(1, 20, 150)
    rank = generator.integers(1, 1 + ability[user])
    measured = measure(ranks_of(list(rank), list(user)), [RetrievalMetric("hits", 5)])["hits@5"]
    _, position = np.unique(user, return_inverse=True)
    hits = np.bincount(position, rank <= 5)
    residual = hits - measured.value * np.bincount(position)
    error = np.sqrt((residual**2).sum()) / len(user)
    assert (measured.high - measured.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_no_query_has_no_value() -> None:
    measured = measure(ranks_of([], []), [RetrievalMetric("mrr")], QUICK)["mrr"]
    assert math.isnan(measured.value) and math.isnan(measured.low)


def test_differences_by_hand() -> None:
    first = replace(RANKS, rank=np.array([1, 1, 1, OUTSIDE_CORPUS]))
    found = measure_together({"a": first, "b": RANKS}, [RetrievalMetric("hits", 1)], QUICK)
    assert found.differences["b"]["hits@1"].value == pytest.approx(3 / 4 - 1 / 4)
    assert found.differences["a"]["hits@1"].high == 0


def test_together_is_as_each_alone() -> None:
    generator = np.random.default_rng(2)
    user = generator.integers(0, 40, 300)
    first, second = (ranks_of(list(generator.integers(1, 30, 300)), list(user)) for _ in range(2))
    metrics = [RetrievalMetric("hits", 10), RetrievalMetric("mrr")]
    together = measure_together({"a": first, "b": second}, metrics, QUICK)
    for name, ranks in {"a": first, "b": second}.items():
        for metric, alone in measure(ranks, metrics, QUICK).items():
            found = together.values[name][metric]
            assert found.value == pytest.approx(alone.value, rel=1e-12)
            assert (found.low, found.high) == pytest.approx((alone.low, alone.high), rel=1e-12)
    gap = together.differences["b"]["mrr"]
    assert gap.value == pytest.approx(
        together.values["a"]["mrr"].value - together.values["b"]["mrr"].value
    )
    assert together.differences["a"]["mrr"].high == 0


def test_a_paired_difference_is_narrower_than_the_intervals() -> None:
    """What both runs share cancels: the test run finds one of each user's targets more."""
    generator = np.random.default_rng(1)
    user = np.repeat(np.arange(100), 5)
    found = generator.random(100)[user] > 0.5
    control = ranks_of(list(np.where(found, 1, 50)), list(user))
    test = replace(control, rank=np.where(np.arange(500) % 5 == 0, 1, control.rank))
    found = measure_together({"a": test, "b": control}, [RetrievalMetric("hits", 10)])
    gap, alone = found.differences["b"]["hits@10"], found.values["a"]["hits@10"]
    assert gap.low > 0 and gap.high - gap.low < 0.5 * (alone.high - alone.low)


@pytest.mark.parametrize("name", ["query", "user", "target"])
def test_other_queries_are_refused(name: str) -> None:
    other = replace(RANKS, **{name: getattr(RANKS, name) + 1})
    with pytest.raises(DataError, match=f"their {name} columns differ"):
        measure_together({"a": other, "b": RANKS}, [RetrievalMetric("mrr")], QUICK)


def test_fewer_queries_are_refused() -> None:
    one = RANKS.only(RANKS.rank == 1)
    with pytest.raises(DataError, match="1 against 4 queries"):
        measure_together({"a": one, "b": RANKS}, [RetrievalMetric("mrr")], QUICK)


def test_where_all_targets_are_one_item_users_differ_and_items_cannot() -> None:
    ranks = replace(ranks_of([1, 50, 1, 50], [1, 2, 3, 4]), target=np.full(4, 9))
    of_both = {"a": ranks, "b": replace(ranks, rank=np.full(4, 50))}
    metrics = [RetrievalMetric("hits", 10)]
    over_users = measure_together(of_both, metrics, QUICK).differences["b"]["hits@10"]
    over_items = measure_together(of_both, metrics, QUICK, Unit.ITEM).differences["b"]["hits@10"]
    assert over_users.low < 0.5 < over_users.high
    assert over_items.value == 0.5  # one item says nothing of how others would differ
    assert np.isnan(over_items.low) and np.isnan(over_items.high)


def test_an_item_that_is_found_by_all_makes_the_interval_over_items_wide() -> None:
    """Half of 1,000 users have one item that is found, the others nine that are not."""
    target = np.where(np.arange(1000) < 500, 0, 1 + np.arange(1000) % 9)
    ranks = replace(ranks_of(list(np.where(target == 0, 1, 50)), list(range(1000))), target=target)
    metrics = [RetrievalMetric("hits", 10)]
    over_users = measure_together({"a": ranks}, metrics, QUICK).values["a"]["hits@10"]
    over_items = measure_together({"a": ranks}, metrics, QUICK, Unit.ITEM).values["a"]["hits@10"]
    assert over_users.high - over_users.low < 0.1
    assert over_items.low == 0  # a third of the draws have not got it: (9/10)^10
    assert over_items.high > 0.7


def test_effective_items_by_hand() -> None:
    ranks = replace(ranks_of([1, 1, 1, 1], [1, 2, 3, 4]), target=np.array([5, 5, 6, 7]))
    assert effective_items(ranks) == pytest.approx(16 / 6)
    assert math.isnan(effective_items(ranks_of([], [])))
