"""Thresholds of age, before the search, and of score, after it."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.index.faiss.kinds import IndexKind
from recsys.index.faiss.search import NONE, Found
from recsys.serving.pipeline import Restriction
from recsys.serving.stages.search import NearestItems
from recsys.serving.stages.thresholds import BelowScore, TooOld
from tests.serving.corpus import embeddings, ids_at, index_of, step


@pytest.mark.parametrize("kind", list(IndexKind))
def test_old_items_and_low_scores_are_left_out(kind: str) -> None:
    index = index_of(range(300), kind, last_seen=list(range(300)))
    users, queries = step([1, 2]), embeddings(2, seed=4)
    source = NearestItems(index, k=300)
    young = source.find(users, queries, TooOld(index, 280).restrict(users))
    assert sorted(ids_at(index, young.slot[0])) == list(range(280, 300))
    everything = source.find(users, queries, Restriction())
    keep = BelowScore(0.5).keep(users, everything)
    assert 0 < keep[0].sum() < 300
    assert (everything.score[keep] >= 0.5).all() and (everything.score[~keep] < 0.5).all()


def test_an_item_without_a_time_is_too_old_for_any_moment() -> None:
    index = index_of([1, 2, 3], first_seen=[None, 5, 5], last_seen=[None, None, 9])
    users = step([1])
    found = NearestItems(index, 3).find(
        users, embeddings(1, seed=2), TooOld(index, 5).restrict(users)
    )
    assert sorted(ids_at(index, found.slot[0])) == [2, 3]


def test_an_item_seen_again_since_is_as_young_as_then() -> None:
    index = index_of([1, 2], first_seen=[3, 3], last_seen=[3, 8])
    assert TooOld(index, 8).restrict(step([1])).eligible.tolist() == [False, True]


def test_a_score_may_be_just_high_enough_and_no_score_never_is() -> None:
    found = Found(np.array([[4, 5, NONE]]), np.array([[0.5, 0.25, np.nan]], np.float32))
    assert BelowScore(0.5).keep(step([1]), found).tolist() == [[True, False, False]]
    assert BelowScore(-1.0).keep(step([1]), found).tolist() == [[True, True, False]]
