"""The recommender of the log: its propensities are the frequencies of what it draws."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.simulator.world.play import Requests, play
from recsys.data.simulator.world.recommender import LoggingRecommender
from recsys.data.simulator.world.seen import SeenItems
from recsys.data.simulator.world.viewing import NOTHING

TICK = 5 * 60_000


@pytest.fixture(scope="module")
def learned(world):
    """A recommender that has seen a day, and one user's request, who has seen some items."""
    policy = LoggingRecommender(world, seed=5)
    visits = world.visits(world.start, world.start + 86_400_000)
    list(play(world, policy, visits, TICK))
    begins = int(visits.time[-1]) // TICK * TICK
    alive = world.alive(begins, begins + TICK)[:150]
    seen = SeenItems(world.items, len(world.users))
    seen.advance(begins - world.start, begins - world.start + TICK)
    seen.add(np.full(20, 4), alive[:40:2])
    many = 20_000
    requests = Requests(
        np.full(many, 4), np.full(many, begins + 1), np.zeros(many, np.int8), alive, seen
    )
    return policy, requests


def test_the_first_slot_is_drawn_with_its_propensity(learned):
    policy, requests = learned
    found = policy.recommend(requests, 6)
    items, propensity = found.items[:, 0], found.propensity[:, 0].astype(np.float64)
    chance = {item: propensity[items == item] for item in np.unique(items).tolist()}
    assert all(np.allclose(p, p[0]) for p in chance.values())
    assert len(chance) == 130  # every item alive that was not seen has a chance
    assert sum(p[0] for p in chance.values()) == pytest.approx(1, abs=1e-3)
    expected = np.array([p[0] for p in chance.values()]) * len(items)
    counts = np.array([len(p) for p in chance.values()])
    assert ((counts - expected) ** 2 / expected).sum() < 200  # 129 degrees of freedom


def test_later_slots_weigh_what_is_left_to_one(learned):
    """E[1 / propensity over a set] is how many of the set are left; E[1] is 1 in every slot."""
    policy, requests = learned
    found = policy.recommend(requests, 6)
    few = np.isin(requests.alive, requests.alive[41:80:3])
    chosen = requests.alive[few]
    for slot in range(6):
        inside = np.isin(found.items[:, slot], chosen)
        weighed = np.where(inside, 1 / found.propensity[:, slot], 0)
        left = len(chosen) - np.isin(found.items[:, :slot], chosen).sum(axis=1)
        residual = weighed - left
        assert abs(residual.mean()) < 4.5 * residual.std() / np.sqrt(len(residual)), slot


def test_lists_hold_no_item_twice_and_none_that_was_seen(learned):
    policy, requests = learned
    items = policy.recommend(requests, 24).items[:500]
    assert all(len(set(row)) == 24 for row in items.tolist())
    assert not requests.seen.has(requests.user[:500, None], items).any()


def test_fewer_items_than_slots_leave_slots_empty(learned):
    policy, requests = learned
    short = Requests(
        requests.user[:50], requests.time[:50], requests.surface[:50],
        requests.alive[[1, 3, 5]], requests.seen,
    )  # fmt: skip
    found = policy.recommend(short, 5)
    assert ((found.items != NOTHING).sum(axis=1) <= 3).all()
    np.testing.assert_array_equal(np.isnan(found.propensity), found.items == NOTHING)
    none = Requests(short.user, short.time, short.surface, short.alive[:0], short.seen)
    assert (policy.recommend(none, 5).items == NOTHING).all()
