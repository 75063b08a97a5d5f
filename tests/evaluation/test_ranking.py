"""Ranks by hand, against a reference that sorts, and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.evaluation import ranking
from recsys.evaluation.batch_hits import batch_pools
from recsys.evaluation.corpora import alive_items, all_items
from recsys.evaluation.queries import EvaluationQueries, EventsByTime, flat_ranges
from recsys.evaluation.ranking import OUTSIDE_CORPUS, DotProductScorer, rank_table, rank_targets
from tests.evaluation.engagements import DAY, HOUR, random_events, store_of


class Table:
    """Given scores [Q, V]."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.scores = torch.tensor(scores)

    def score(self, queries: slice) -> torch.Tensor:
        return self.scores[queries]


EVERYTHING = np.ones(6, dtype=bool)

#: User 1 saw 1, then 2, then 3; user 2 saw 4 and then 3. Nobody ever saw 5.
EVENTS = [(1, 1, 0), (1, 2, HOUR), (1, 3, 2 * DAY), (2, 4, DAY), (2, 3, 2 * DAY)]


def test_history_is_strictly_before_the_query(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, 1, 5), (1, 2, 7), (1, 3, 7), (2, 4, 7)])
    queries = EvaluationQueries.of_period(store, 7, 8)
    assert queries.user.tolist() == [1, 1, 2]
    assert queries.target.tolist() == [2, 3, 4]
    assert queries.history_events.tolist() == [1, 1, 0]
    assert queries.as_of(store, queries.time).history_events.tolist() == [1, 1, 0]
    assert queries.as_of(store, np.array([5, 6, 9])).history_events.tolist() == [0, 1, 0]


def test_ranks_by_hand(tmp_path: Path) -> None:
    """Target 3 of both users at day 2. All items: 1, 2, 3, 4. Alive: 4 alone, seen a day ago."""
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    scorer = Table(
        [
            # 5 is no candidate, 1 and 2 were seen: only 4 is better
            [9.0, 0.9, 0.8, 0.5, 0.6, 0.9],
            # 1 is better, 2 ties, 4 was seen
            [9.0, 0.9, 0.5, 0.5, 0.6, 0.9],
        ]
    )
    corpora = {
        "all": all_items(store, queries, 3 * DAY, EVERYTHING),
        "alive": alive_items(EventsByTime.of(store), queries, store, EVERYTHING),
    }
    ranks = rank_targets(scorer, queries, corpora, 6)
    assert ranks["all"].rank.tolist() == [2, 3]
    assert ranks["alive"].rank.tolist() == [OUTSIDE_CORPUS, OUTSIDE_CORPUS]
    assert ranks["alive"].share_outside == 1.0
    assert ranks["all"].share_outside == 0.0
    assert corpora["all"].sizes.tolist() == [4] and corpora["alive"].sizes.tolist() == [1]


def test_items_without_embedding_and_of_later_periods_are_no_candidates(tmp_path: Path) -> None:
    store = store_of(tmp_path, [*EVENTS, (2, 5, 4 * DAY)])
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    known = EVERYTHING.copy()
    known[4] = False
    corpus = all_items(store, queries, 3 * DAY, known)
    assert corpus.sizes.tolist() == [3]
    scores = Table([[0.0, 0.0, 0.0, 0.5, 0.6, 0.7]] * 2)
    assert rank_targets(scores, queries, {"all": corpus}, 6)["all"].rank.tolist() == [1, 1]


def test_alive_means_engaged_in_the_day_before_the_full_hour(tmp_path: Path) -> None:
    query = 30 * HOUR + 17  # answered from the snapshot of hour 30: [6 h, 30 h)
    moments = [6 * HOUR - 1, 6 * HOUR, 30 * HOUR - 1, 30 * HOUR, query - 1]
    events = [(1, item, time) for item, time in enumerate(moments, start=1)]
    store = store_of(
        tmp_path, [*events, (2, 1, query), (3, 2, query), (4, 3, query), (5, 4, query)]
    )
    queries = EvaluationQueries.of_period(store, query, query + 1)
    corpus = alive_items(EventsByTime.of(store), queries, store, EVERYTHING)
    ranks = rank_targets(Table([[0.0] * 6] * 4), queries, {"alive": corpus}, 6)["alive"]
    assert ranks.rank.tolist() == [OUTSIDE_CORPUS, 2, 2, OUTSIDE_CORPUS]
    assert ranks.share_outside == 0.5


def test_a_target_seen_before_stays_a_candidate(tmp_path: Path) -> None:
    """With repeats an item may be in the history and be the target."""
    store = store_of(tmp_path, [(1, 1, 0), (1, 2, 1), (1, 1, 2), (1, 1, 3)])
    queries = EvaluationQueries.of_period(store, 3, 4)
    corpus = all_items(store, queries, 4, np.ones(3, dtype=bool))
    ranks = rank_targets(Table([[0.0, 0.1, 0.9]]), queries, {"all": corpus}, 3)["all"]
    assert ranks.rank.tolist() == [1]


def test_batch_ranks_by_hand(tmp_path: Path) -> None:
    """One batch of all four queries: pool 1, 2, 3, where 1 is shared by two users; user 2 saw 3
    before, user 3 saw 4, which nobody of the batch is to find.
    """
    events = [(1, 1, 10), (1, 2, 11), (2, 3, 0), (2, 1, 12), (3, 4, 0), (3, 3, 13)]
    store = store_of(tmp_path, events)
    queries = EvaluationQueries.of_period(store, 10, 14)
    scores = Table(
        [
            [9.0, 0.5, 0.9, 0.6, 0.7],  # target 1; the user's other target 2 is out; 3 is better
            [9.0, 0.9, 0.5, 0.4, 0.3],  # target 2; 1 is in the history
            [9.0, 0.5, 0.5, 0.6, 0.1],  # target 1: 2 ties, 3 was seen
            [9.0, 0.2, 0.2, 0.3, 0.4],  # target 3; 4 was seen and is no target either
        ]
    )
    pools = {"batch": batch_pools(queries, store, 5)}
    ranks = rank_targets(scores, queries, pools, 5)["batch"]
    assert ranks.rank.tolist() == [2, 1, 2, 1]


def test_a_target_seen_before_is_a_candidate_of_its_batch(tmp_path: Path) -> None:
    """With repeats an item may be in the history and be the target."""
    store = store_of(tmp_path, [(1, 1, 0), (2, 1, 0), (1, 1, 10), (2, 2, 11)])
    queries = EvaluationQueries.of_period(store, 10, 12)
    pools = {"batch": batch_pools(queries, store, 3)}
    ranks = rank_targets(Table([[0.0, 0.1, 0.9], [0.0, 0.9, 0.1]]), queries, pools, 3)["batch"]
    assert ranks.rank.tolist() == [2, 1]


def test_batches_are_whole_and_shuffled_by_the_seed(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(user, user, user) for user in range(1, 12)])
    queries = EvaluationQueries.of_period(store, 0, 100)
    pools = batch_pools(queries, store, 12, seed=3, batch_size=4)
    ranks = rank_targets(Table([[0.0] * 12] * 11), queries, {"batch": pools}, 12)["batch"]
    assert len(ranks) == 8 and set(ranks.rank.tolist()) == {4}
    assert np.bincount(pools.batch[ranks.query]).tolist() == [4, 4]
    again = batch_pools(queries, store, 12, seed=3, batch_size=4)
    other = batch_pools(queries, store, 12, seed=4, batch_size=4)
    assert again.batch.tolist() == pools.batch.tolist() != other.batch.tolist()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000))
def test_ranks_equal_those_of_sorting(tmp_path: Path, seed: int) -> None:
    """Against a loop over queries and candidates, in chunks of several sizes, with ties."""
    generator = np.random.default_rng(seed)
    store = store_of(tmp_path / str(seed), random_events(generator, 60, 6, 9, 4 * DAY))
    queries = EvaluationQueries.of_period(store, 2 * DAY, 4 * DAY)
    scores = generator.integers(0, 4, (len(queries), 9)).astype(float)
    known = generator.random(9) < 0.8
    sets = {
        "all": all_items(store, queries, 4 * DAY, known),
        "alive": alive_items(EventsByTime.of(store), queries, store, known),
        "batch": batch_pools(queries, store, 9, seed=seed, batch_size=5),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "MOST_QUERIES", 1 + seed % 7)
        ranks = rank_targets(Table(scores.tolist()), queries, sets, 9)
    measured = {name: dict(zip(r.query, r.rank, strict=True)) for name, r in ranks.items()}
    item, time = store.item, store.timestamp
    for q in range(len(queries)):
        seen = {
            int(i)
            for u, i, t in zip(store.user, item, time, strict=True)
            if u == queries.user[q] and t < queries.time[q]
        }
        hour = queries.time[q] // HOUR * HOUR
        candidates = {
            "all": {int(i) for i, t in zip(item, time, strict=True) if t < 4 * DAY and known[i]},
            "alive": {
                int(i)
                for i, t in zip(item, time, strict=True)
                if hour - DAY <= t < hour and known[i]
            },
        }
        target = int(queries.target[q])
        for name, items in candidates.items():
            better = [p for p in items - seen - {target} if scores[q, p] >= scores[q, target]]
            expected = len(better) + 1 if target in items else OUTSIDE_CORPUS
            assert measured[name][q] == expected
        batch = sets["batch"].batch
        if batch[q] < 0:
            assert q not in measured["batch"]
            continue
        mates = np.flatnonzero(batch == batch[q])
        own = {int(queries.target[m]) for m in mates if queries.user[m] == queries.user[q]}
        others = {int(queries.target[m]) for m in mates} - own - seen
        better = [p for p in others if scores[q, p] >= scores[q, target]]
        assert measured["batch"][q] == len(better) + 1


def test_chunks_stay_within_their_memory() -> None:
    for num_items in (10, 4_097, 1_000_000, 500_000_000):
        runs = list(ranking.query_chunks(10_000, num_items))
        assert [runs[0].start, runs[-1].stop] == [0, 10_000]
        assert all(a.stop == b.start for a, b in pairwise(runs))
        rows = max(run.stop - run.start for run in runs)
        assert rows == 1 or rows * num_items * 4 <= ranking.MOST_SCORE_BYTES
        if rows > ranking.FEWEST_QUERIES:
            assert rows * num_items * 4 <= ranking.SCORE_BYTES


def test_dot_product_scorer() -> None:
    users = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    items = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scores = DotProductScorer(users, items).score(slice(1, 2))
    assert scores.tolist() == [[0.0, pytest.approx(0.6), pytest.approx(0.8)]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    scores = Table([[0.0] * 6, [0.0, 0.0, bad, 0.0, 0.0, 0.0]])
    corpora = {"all": all_items(store, queries, 3 * DAY, EVERYTHING)}
    with pytest.raises(DataError, match=r"item index 2 for query 1 .*not finite"):
        rank_targets(scores, queries, corpora, 6)


def test_scores_of_another_width_are_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 2 * DAY, 3 * DAY)
    with pytest.raises(DataError, match=r"shape \(2, 5\).*expected \(2, 6\)"):
        rank_targets(Table([[0.0] * 5] * 2), queries, {}, 6)


def test_rank_table(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, DAY, 3 * DAY)
    sets = {
        "batch": batch_pools(queries, store, 6, batch_size=2),
        "alive": alive_items(EventsByTime.of(store), queries, store, EVERYTHING),
    }
    ranks = rank_targets(Table([[0.0] * 6] * 3), queries, sets, 6)
    table = rank_table(queries, ranks)
    assert table["query_id"].to_list() == [0, 1, 2]
    assert table["user"].to_list() == [2, 1, 2]
    assert table["item"].to_list() == [4, 3, 3]
    assert table["request_time"].to_list() == [DAY, 2 * DAY, 2 * DAY]
    assert table["history_events"].to_list() == [0, 2, 1]
    assert table["rank_batch"].null_count() == 1
    assert table["rank_alive"].to_list() == [OUTSIDE_CORPUS] * 3


def test_no_query(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, 7 * DAY, 8 * DAY)
    sets = {
        "all": all_items(store, queries, 8 * DAY, EVERYTHING),
        "alive": alive_items(EventsByTime.of(store), queries, store, EVERYTHING),
        "batch": batch_pools(queries, store, 6),
    }
    ranks = rank_targets(Table([[0.0] * 6]), queries, sets, 6)
    assert {name: len(measured) for name, measured in ranks.items()} == dict.fromkeys(sets, 0)


def test_flat_ranges() -> None:
    row, number = flat_ranges(np.array([5, 3, 0]), np.array([7, 3, 1]))
    assert row.tolist() == [0, 0, 2] and number.tolist() == [5, 6, 0]
