"""Groups of queries by hand, and what is ranked and measured of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recsys.evaluation.batch_hits import batch_pools
from recsys.evaluation.corpora import items_before
from recsys.evaluation.groups import QueryGroup, day_groups, history_groups, item_groups
from recsys.evaluation.queries import EvaluationQueries
from recsys.evaluation.ranking import DotProductScorer, Ranks, rank_targets
from recsys.evaluation.retrieval_metrics import RetrievalMetric, measure_together
from tests.evaluation.engagements import DAY, store_of


def members(groups: list[QueryGroup]) -> dict[str, list[int]]:
    return {group.name: np.flatnonzero(group.chosen).tolist() for group in groups}


def test_by_history(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, item, item) for item in range(1, 8)])
    queries = EvaluationQueries.of_period(store, 0, 100)
    query = np.array([0, 2, 4, 5, 6])  # with as many events before them
    ranks = Ranks(query, queries.user[query], queries.target[query], query + 1, "")
    groups = history_groups(queries)
    assert {group.name: ranks.of(group).query.tolist() for group in groups} == {
        "no_event": [0],
        "1_to_4_events": [2, 4],
        "0_to_4_events": [0, 2, 4],
    }
    assert ranks.of(groups[0]).part == "queries without an engagement before"


def test_by_day(tmp_path: Path) -> None:
    store = store_of(tmp_path, [(1, 1, DAY), (2, 1, 2 * DAY - 1), (2, 2, 3 * DAY), (3, 1, 0)])
    queries = EvaluationQueries.of_period(store, DAY, 4 * DAY)
    assert members(day_groups(queries, DAY)) == {"day_0": [0, 1], "day_2": [2]}


#: The fit period ends after a day. Items 1 and 2 are of it, 3 and 4 came later.
EVENTS = [(1, 1, 0), (2, 2, 1), (1, 3, DAY), (2, 4, DAY + 1), (3, 2, DAY + 2), (4, 3, DAY + 3)]


def test_seen_and_unseen_items_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, DAY, 2 * DAY)
    groups = item_groups(queries, items_before(store, DAY, 5))
    # item 3 is still a new one when user 4 comes to it: no model was trained on it
    assert members(groups) == {"seen_posts": [2], "unseen_posts": [0, 1, 3]}
    ranks = Ranks(np.arange(4), queries.user, queries.target, np.array([1, 2, 1, 5]), "")
    metrics = [RetrievalMetric("hits", 2), RetrievalMetric("mrr")]
    unseen = measure_together({"": ranks.of(groups[1])}, metrics).values[""]
    assert unseen["hits@2"].value == 2 / 3
    assert unseen["mrr"].value == (1 + 1 / 2 + 1 / 5) / 3


def test_unseen_items_are_ranked_among_themselves(tmp_path: Path) -> None:
    store = store_of(tmp_path, EVENTS)
    queries = EvaluationQueries.of_period(store, DAY, 2 * DAY)
    [_, unseen] = item_groups(queries, items_before(store, DAY, 5))
    pools = {
        "batch": batch_pools(queries, store, 5),
        "unseen_batch": batch_pools(queries, store, 5, group=unseen),
    }
    # everybody prefers item 2 to 3 to 4
    users, items = torch.ones(4, 1), torch.tensor([[0.0], [0.0], [3.0], [2.0], [1.0]])
    ranks = rank_targets(DotProductScorer(users, items), queries, pools, 5)
    # user 2 saw 2 before both queries
    assert ranks["batch"].rank.tolist() == [2, 2, 1, 2]
    assert ranks["unseen_batch"].query.tolist() == [0, 1, 3]
    assert ranks["unseen_batch"].rank.tolist() == [1, 2, 1]
    assert (
        "a batch of 3 queries of items first engaged with after" in ranks["unseen_batch"].candidates
    )
