"""The policies that ship: what they recommend, and that truth and chance bound the others."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.data.simulator.world.play import Requests, play
from recsys.data.simulator.world.seen import SeenItems
from recsys.data.simulator.world.viewing import NOTHING, Shown
from recsys.evaluation.paired import Bootstrap
from recsys.online.compare import compared, played
from recsys.online.policies import POLICIES, first_unseen, make_policy

TICK = 5 * 60_000


def requests_of(world, users, seen_pairs=()):
    time = world.start + MILLISECONDS_PER_DAY // TICK * TICK
    seen = SeenItems(world.items, len(world.users))
    seen.advance(time - world.start, time - world.start + TICK)
    if len(seen_pairs):
        seen.add(*np.array(seen_pairs).T)
    user = np.array(users)
    alive = world.alive(time, time + TICK)
    return Requests(user, np.full(len(user), time + 7), np.zeros(len(user), np.int8), alive, seen)


def test_best_is_the_list_of_the_highest_expected_value(world):
    plain = requests_of(world, range(20))
    one = make_policy("best", world).recommend(plain, 5)
    truth = world.probabilities(
        plain.user[:, None], plain.alive[None, :], plain.time[:, None], plain.surface[:, None]
    )
    value = np.nan_to_num(truth.astype(np.float64)) @ world.value
    order = np.argsort(-value, axis=1)[:, :5]
    np.testing.assert_array_equal(one.items, plain.alive[order])
    assert one.pairs_scored == len(plain.alive)
    seen = requests_of(world, range(20), [(user, one.items[user, 0]) for user in range(20)])
    again = make_policy("best", world).recommend(seen, 4)
    np.testing.assert_array_equal(again.items, one.items[:, 1:])
    np.testing.assert_array_equal(
        make_policy("best", world).recommend(seen.only(np.array([7])), 4).items[0], again.items[7]
    )


def test_popular_counts_the_users_region(world):
    policy = make_policy("popular", world)
    wanted = requests_of(world, range(60))
    region = world.users.region[wanted.user]
    here, there = wanted.user[region == 0], wanted.user[region == 1]
    liked = [task.name == "liked" for task in world.tasks]
    see_less = [task.name == "see_less" for task in world.tasks]

    def shown(user, item, positive):
        n = len(user)
        outcomes = np.zeros((n, len(world.tasks)), np.float32)
        outcomes[:, positive] = 1
        zeros, item = np.zeros(n, np.int64), np.full(n, item)
        moment = np.full(n, wanted.time[0])
        return Shown(
            zeros, user, item, moment, zeros.astype(np.int8), zeros, moment, moment, outcomes,
            np.full(n, np.nan, np.float32),
        )  # fmt: skip

    first, second, hated = wanted.alive[[5, 9, 11]]
    policy.observe(shown(here[:3], first, liked))
    policy.observe(shown(here[:2], second, liked))
    policy.observe(shown(there[:3], second, liked))
    policy.observe(shown(here, hated, see_less))
    items = policy.recommend(wanted, 3).items
    newest = wanted.alive[::-1]
    for user, row in zip(wanted.user, items, strict=True):
        code = world.users.region[user]
        expected = {0: [first, second, newest[0]], 1: [second, newest[0], newest[1]]}
        assert row.tolist() == expected.get(code, newest[:3].tolist())


def test_recent_popularity_fades(world):
    policy = make_policy("recent_popular", world)
    counters = policy._counters
    counters.advance(world.start)
    counters.engaged[0, 3] = 8.0
    counters.advance(world.start + 6 * 3_600_000 + 59 * 60_000)
    assert counters.engaged[0, 3] == pytest.approx(4.0)
    counters.advance(world.start + 12 * 3_600_000)
    assert counters.engaged[0, 3] == pytest.approx(2.0)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_few_items_nobody_and_all_seen(world, name):
    policy = make_policy(name, world)
    few = requests_of(world, range(8))
    few = Requests(few.user, few.time, few.surface, few.alive[:3], few.seen)
    few.seen.add(np.zeros(3, np.int64), few.alive)
    items = policy.recommend(few, 5).items
    assert items.shape == (8, 5) and (items[0] == NOTHING).all()
    for row in items[1:]:
        assert sorted(row[:3]) == sorted(few.alive) and (row[3:] == NOTHING).all()
    nothing = Requests(few.user, few.time, few.surface, few.alive[:0], few.seen)
    assert (policy.recommend(nothing, 5).items == NOTHING).all()


def test_the_first_unseen_of_an_order(world):
    order = requests_of(world, [0]).alive[:400]
    pairs = [(0, item) for item in order[:350].tolist()] + [(1, order[1])]
    requests = requests_of(world, [0, 1, 2], pairs)
    found = first_unseen(requests, order, 4)
    assert found[0].tolist() == order[350:354].tolist()
    assert found[1].tolist() == order[[0, 2, 3, 4]].tolist()
    assert found[2].tolist() == order[:4].tolist()
    turned = first_unseen(requests, order, 4, np.array([398, 0, 398]))
    assert turned[2].tolist() == order[[398, 399, 0, 1]].tolist()
    assert turned[0].tolist() == order[[398, 399, 350, 351]].tolist()


def test_truth_is_better_than_popularity_and_popularity_than_chance(world):
    """With intervals over users: each difference of the ladder is above 0."""
    visits = world.visits(world.start + MILLISECONDS_PER_DAY // 4, world.end)
    warm = list(play(world, make_policy("random", world), visits.at(slice(0, 250)), TICK))
    before = Shown.together([tick.shown for tick in warm])
    later = visits.at(slice(250, 1500))
    sums = {
        name: played(world, make_policy(name, world), later, TICK, 6.0, before)
        for name in ("best", "popular", "random")
    }
    for better, worse in (("best", "popular"), ("popular", "random")):
        found = compared(sums[better], sums[worse], Bootstrap(resamples=300))
        metrics = {metric.name: metric for metric in found.metrics}
        assert metrics["value_per_session"].difference.low > 0, (better, worse)
        assert found.visits == len(later)
        assert metrics["refused_per_session"].policy.value == 0


def test_an_unknown_policy_is_one_sentence(world):
    with pytest.raises(ConfigError, match="policy bets is unknown; choose from best, random"):
        make_policy("bets", world)
