"""Popularity by hand, against counting by definition, and without a look at the future."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.baselines.popularity import (
    FitPopularity,
    RecentPopularity,
    WithPopularity,
    choose_weight,
)
from recsys.evaluation.corpora import all_items
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.ranking import DotProductScorer, Scorer, rank_targets
from recsys.evaluation.retrieval_metrics import RetrievalMetric
from tests.evaluation.engagements import DAY, HOUR, random_events, store_of

EVENTS = [(1, 1, 0), (2, 1, HOUR), (3, 2, HOUR), (4, 2, 2 * HOUR), (5, 3, 2 * HOUR)]


def recent(
    store: EngagementStore, queries: EvaluationQueries, items: int, window: int | None
) -> torch.Tensor:
    scorer = RecentPopularity(EventsByTime.of(store), queries, items, window)
    return scorer.score(slice(0, len(queries)))


def test_popularity_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, HOUR, DAY)
    assert queries.time.tolist() == [HOUR, HOUR, 2 * HOUR, 2 * HOUR]
    # everything before: an event at the query's own moment does not count
    before = [[0, 1, 0, 0], [0, 1, 0, 0], [0, 2, 1, 0], [0, 2, 1, 0]]
    assert recent(store, queries, 4, None).tolist() == before
    # the last hour: [0, 1 h) and [1 h, 2 h)
    hour = [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert recent(store, queries, 4, HOUR).tolist() == hour
    fit = FitPopularity(store, 2 * HOUR, 4).score(slice(0, 2))
    assert fit.tolist() == [[0, 2, 1, 0], [0, 2, 1, 0]]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000))
def test_recent_popularity_equals_counting(tmp_path: Path, seed: int) -> None:
    """Whatever the order of the queries and wherever a chunk starts."""
    generator = np.random.default_rng(seed)
    store = store_of(tmp_path / str(seed), random_events(generator, 80, 8, 6, 3 * DAY))
    queries = EvaluationQueries.of_period(store, DAY, 3 * DAY)
    queries = queries.only(generator.permutation(len(queries)))
    for window in (None, 5 * HOUR):
        scorer = RecentPopularity(EventsByTime.of(store), queries, 6, window)
        rows = slice(len(queries) // 3, len(queries))
        for time, counts in zip(queries.time[rows], scorer.score(rows), strict=True):
            past = (store.timestamp < time) & (store.timestamp >= time - (window or 3 * DAY))
            assert counts.tolist() == np.bincount(store.item[past], minlength=6).tolist()


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000))
def test_events_at_and_after_the_query_change_nothing(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    events = random_events(generator, 60, 6, 6, 2 * DAY)
    moment = DAY + HOUR
    planted = [(9, 5, int(time)) for time in generator.integers(moment, 2 * DAY, 20)]
    scores = []
    for name, log in {"clean": events, "planted": [*events, *planted]}.items():
        store = store_of(tmp_path / f"{seed}_{name}", log, num_users=10)
        queries = EvaluationQueries.of_period(store, DAY, moment + 1)
        queries = queries.only(queries.user != 9)
        scores.append([recent(store, queries, 6, window) for window in (None, HOUR, DAY)])
    for clean, planted_scores in zip(*scores, strict=True):
        torch.testing.assert_close(clean, planted_scores, rtol=0, atol=0)


def two_scorers(
    folder: Path,
) -> tuple[EngagementStore, EvaluationQueries, DotProductScorer, RecentPopularity]:
    """User 5's target 3: content says 2, 3, 1; the day's popularity says 1, 3, 2."""
    events = [(1, 1, 0), (2, 1, 1), (3, 1, 2), (2, 3, 3), (4, 2, -2 * DAY), (5, 3, HOUR)]
    store = store_of(folder, events)
    queries = EvaluationQueries.of_period(store, HOUR, DAY)
    items = torch.tensor([[0.0], [0.1], [0.9], [0.8]])
    content = DotProductScorer(torch.ones(1, 1), items)
    popularity = RecentPopularity(EventsByTime.of(store), queries, 4, DAY)
    return store, queries, content, popularity


def test_combination_by_hand(tmp_path: Path) -> None:
    _, _, content, popularity = two_scorers(tmp_path)
    scores = WithPopularity(content, popularity, 0.5).score(slice(0, 1))
    expected = [0, 0.1 + 0.5 * math.log(4), 0.9, 0.8 + 0.5 * math.log(2)]
    assert scores[0].tolist() == pytest.approx(expected)


def test_the_weight_is_the_best_of_the_grid(tmp_path: Path) -> None:
    """Content alone and much popularity rank the target second; in between it is first."""
    store, queries, content, popularity = two_scorers(tmp_path)
    corpus = all_items(store, queries, DAY, np.ones(4, dtype=bool))
    metric = RetrievalMetric("hits", 1)
    grid = [10.0, 0.3, 0.0, 0.2]
    chosen = choose_weight(content, popularity, queries, corpus, 4, metric, grid)
    assert chosen.values == {0.0: 0.0, 0.2: 1.0, 0.3: 1.0, 10.0: 0.0}
    assert (chosen.weight, chosen.metric) == (0.2, "hits@1")
    assert chosen.candidates == corpus.description
    for weight, value in chosen.values.items():
        scorer: Scorer = WithPopularity(content, popularity, weight)
        ranks = rank_targets(scorer, queries, {"all": corpus}, 4)["all"]
        assert metric.gains(ranks.rank).mean() == value
