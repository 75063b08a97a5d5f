"""Curves over days by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.evaluation.baselines.similarity import last_item_embeddings
from recsys.evaluation.corpora import all_posts
from recsys.evaluation.paired import Bootstrap
from recsys.evaluation.queries import EvaluationQueries
from recsys.evaluation.ranking import DotProductScorer, Ranks, rank_targets
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from recsys.evaluation.staleness import (
    curve_over_days,
    frozen_at,
    rank_by_staleness,
    staleness_curve,
)
from tests.evaluation.engagements import DAY, HOUR, store_of

QUICK = Bootstrap(resamples=100)
HITS_AT_1 = RetrievalMetric("hits", 1)


def test_staleness_by_hand(tmp_path: Path) -> None:
    """The target, post 4, is near the newest post of the history and far from the older ones."""
    posts = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]])
    events = [(1, 1, 0), (1, 2, 2 * DAY), (1, 4, 2 * DAY + HOUR), (2, 3, HOUR)]
    store = store_of(tmp_path, events)
    queries = EvaluationQueries.of_period(store, 2 * DAY + HOUR, 3 * DAY)
    corpora = {"all": all_posts(store, queries, 3 * DAY, np.ones(5, dtype=bool))}

    def embed(queries: EvaluationQueries, as_of: np.ndarray) -> Tensor:
        return last_item_embeddings(store, queries.as_of(store, as_of), posts)

    by_day = rank_by_staleness(embed, posts, queries, corpora, days=range(4))
    ranks = {day: measured["all"] for day, measured in by_day.items()}
    # fresh: post 2 → 4 before 3; 1 and 2 days old: post 1 → 3 first; 3 days: nothing, all tie.
    # Posts 1 and 2 are removed at every age, for the query's own history has them.
    assert [ranks[day].rank.tolist() for day in range(4)] == [[1], [2], [2], [2]]
    curve = staleness_curve(ranks, HITS_AT_1, QUICK)
    assert [point.day for point in curve] == [0, 1, 2, 3]
    assert [point.value.value for point in curve] == [1, 0, 0, 0]
    assert [point.change.value for point in curve] == [0, -100, -100, -100]
    assert {(point.queries, point.users) for point in curve} == {(1, 1)}


def test_frozen_embeddings_do_not_see_events_after_training(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, 1, 0), (1, 2, DAY), (1, 3, 2 * DAY), (2, 1, HOUR)])
    queries = EvaluationQueries.of_period(store, HOUR, 3 * DAY)
    frozen = frozen_at(queries, DAY)
    assert frozen.tolist() == [HOUR, DAY, DAY]
    assert queries.as_of(store, frozen).history_events.tolist() == [0, 1, 1]
    posts = torch.eye(4)
    users = last_item_embeddings(store, queries.as_of(store, frozen), posts)
    corpora = {"all": all_posts(store, queries, 3 * DAY, np.ones(4, dtype=bool))}
    ranks = rank_targets(DotProductScorer(users, posts), queries, corpora, 4)["all"]
    assert ranks.rank.tolist() == [3, 2, 1]


def test_drop_over_days_by_hand() -> None:
    """Day 0: 3 of 4 found; day 2: 1 of 2 found; nothing on day 1."""
    rank = np.array([1, 1, 1, 2, 1, 2])
    user = np.array([1, 1, 2, 2, 3, 3])
    time = 100 + np.array([0, 1, HOUR, DAY - 1, 2 * DAY, 3 * DAY - 1])
    query = np.arange(6)
    curve = curve_over_days(Ranks(query, user, query, rank, ""), time, 100, HITS_AT_1, QUICK)
    assert [(point.day, point.queries, point.users) for point in curve] == [(0, 4, 2), (2, 2, 1)]
    assert [point.value.value for point in curve] == [0.75, 0.5]
    assert curve[0].change.value == 0
    assert curve[1].change.value == pytest.approx(100 * (0.5 / 0.75 - 1))
    low, high = curve[1].change.low, curve[1].change.high
    # drawn: user 1 alone (1 of 1), user 2 alone (1 of 2), or both, beside user 3's half
    assert low == pytest.approx(-50) and high == pytest.approx(0)


def test_no_hit_on_the_first_day_defines_no_change() -> None:
    query = np.arange(2)
    ranks = Ranks(query, query, query, np.array([9, 1]), "")
    curve = curve_over_days(ranks, np.array([0, DAY]), 0, HITS_AT_1, QUICK)
    assert math.isnan(curve[1].change.value) and curve[1].value.value == 1
