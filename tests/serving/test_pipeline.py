"""Stages put together."""

from __future__ import annotations

import numpy as np

from recsys.index.faiss.search import NONE, Found
from recsys.serving.pipeline import Embedded, Pipeline, Restriction, StepUsers
from recsys.serving.stages.search import NearestItems
from tests.serving.corpus import embeddings, ids_at, index_of, step


class Known:
    """Embeds user i like row i, and user 0 as nothing."""

    name = "known"

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def embed(self, users: StepUsers) -> Embedded:
        embedding = np.where(users.indices[:, None] == 0, 0, self.rows[users.indices])
        return Embedded(embedding.astype(np.float32), users.indices * 10)


class Without:
    """Leaves out slots, for all users or one list per user."""

    name = "without"

    def __init__(self, everyone: list[int] = (), each: list[list[int]] | None = None) -> None:
        self.everyone, self.each = list(everyone), each

    def restrict(self, users: StepUsers) -> Restriction:
        eligible = np.ones(20, np.bool_)
        eligible[self.everyone] = False
        each = self.each and [np.array(one, np.int64) for one in self.each]
        return Restriction(eligible if self.everyone else None, each)


class EvenSlots:
    name = "even"

    def keep(self, users: StepUsers, found: Found) -> np.ndarray:
        return found.slot % 2 == 0


def test_restrictions_hold_together() -> None:
    both = Restriction.all_of(
        [
            Without([1, 2]).restrict(step([1])),
            Restriction(),
            Without([2, 3], [[4], []]).restrict(step([1])),
            Without(each=[[5], [6]]).restrict(step([1])),
        ]
    )
    assert np.flatnonzero(~both.eligible).tolist() == [1, 2, 3]
    assert [one.tolist() for one in both.exclude] == [[4, 5], [6]]
    nothing = Restriction.all_of([])
    assert nothing.eligible is None and nothing.exclude is None


def test_what_is_left_out_before_the_search_is_made_up_for() -> None:
    index, users = index_of(range(20)), step([4, 7])
    free = Pipeline(Known(embeddings(20)), [], NearestItems(index, 20)).run(users)
    before = [Without([4]), Without(each=[[5], [7]])]
    found = Pipeline(Known(embeddings(20)), before, NearestItems(index, 5)).run(users).found
    for row, never in enumerate(({4, 5}, {4, 7})):
        ranking = [one for one in ids_at(index, free.found.slot[row]) if one not in never]
        assert ids_at(index, found.slot[row]) == ranking[:5]


def test_what_is_left_out_after_it_leaves_no_gap() -> None:
    index, users = index_of(range(20)), step([4, 7])
    free = Pipeline(Known(embeddings(20)), [], NearestItems(index, 9)).run(users).found
    even = Pipeline(Known(embeddings(20)), [], NearestItems(index, 9), [EvenSlots()])
    found = even.run(users).found
    for row in range(2):
        kept = free.slot[row] % 2 == 0
        assert 0 < kept.sum() < 9
        assert found.slot[row, : kept.sum()].tolist() == free.slot[row][kept].tolist()
        assert found.score[row, : kept.sum()].tolist() == free.score[row][kept].tolist()
        assert (found.slot[row, kept.sum() :] == NONE).all()
        assert np.isnan(found.score[row, kept.sum() :]).all()


def test_users_without_an_embedding_are_searched_nothing_for() -> None:
    index = index_of(range(20))
    pipeline = Pipeline(Known(embeddings(20)), [Without([3])], NearestItems(index, 2))
    recommended = pipeline.run(step([0, 4, 0, 7]))
    assert recommended.users.raw.to_list() == [104, 107]
    assert recommended.users.indices.tolist() == [4, 7] and recommended.events.tolist() == [40, 70]
    assert recommended.found.slot[:, 0].tolist() == [4, 7]
    none = pipeline.run(step([0, 0]))
    assert none.found.slot.shape == (0, 2) and len(none.users.raw) == 0
