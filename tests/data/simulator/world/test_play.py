"""Playing: what is shown, what a policy learns and when, and that draws are the event's."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.data.simulator.world.play import Recommended, play
from recsys.data.simulator.world.seen import SeenItems
from recsys.data.simulator.world.viewing import NOTHING, Shown

TICK = 5 * 60_000


class Scripted:
    """Recommends what a function says, and keeps what it is told."""

    name = "scripted"

    def __init__(self, choose) -> None:
        self.choose, self.told, self.asked = choose, [], []

    def recommend(self, requests, k):
        self.asked.append(requests)
        return Recommended(self.choose(requests, k))

    def observe(self, shown):
        self.told.append((len(self.asked), shown))


def newest(requests, k):
    return np.tile(requests.alive[::-1][:k], (len(requests), 1))


def oldest(requests, k):
    return np.tile(requests.alive[:k], (len(requests), 1))


def played(world, choose, users=None):
    visits = world.visits(world.log_end, world.end, users)
    policy = Scripted(choose)
    return policy, list(play(world, policy, visits, TICK))


def test_what_may_not_be_shown_is_not_and_is_counted(world):
    def careless(requests, k):
        """A dead item, an item twice, an unborn one, one that is none, and good ones."""
        alive = requests.alive
        dead = np.setdiff1d(np.arange(len(world.items.rank)), alive)
        row = [dead[0], alive[0], alive[0], NOTHING, dead[-1], 10**9, -7, *alive[1 : k - 6]]
        return np.tile(np.array(row), (len(requests), 1))

    _, ticks = played(world, careless)
    seen: set[tuple[int, int]] = set()
    for tick in ticks:
        shown = tick.shown
        assert world.is_alive(shown.item, shown.request_time).all()
        for pair in zip(shown.user.tolist(), shown.item.tolist(), strict=True):
            assert pair not in seen
            seen.add(pair)
        for request in np.unique(shown.request):
            position = shown.position[shown.request == request]
            assert position.tolist() == list(range(len(position)))
    first = ticks[0]
    assert (first.refused >= 5).all()  # NOTHING is no item that was refused
    assert len(seen) > 100


def test_the_same_event_has_the_same_draw_under_two_policies(world):
    found = {}
    common = 0
    for choose in (newest, lambda r, k: np.tile(r.alive[::-1][: k * 2 : 2], (len(r), 1))):
        _, ticks = played(world, choose)
        for tick in ticks:
            shown = tick.shown
            keys = zip(shown.user, shown.item, shown.request_time, strict=True)
            for key, outcome in zip(keys, shown.outcomes, strict=True):
                other = found.setdefault(key, outcome)
                common += other is not outcome
                np.testing.assert_array_equal(other, outcome)
    assert common > 50


def test_visits_do_not_depend_on_who_else_visits(world):
    def of_user(ticks, user):
        together = Shown.together([tick.shown for tick in ticks])
        return together.select(together.user == user)

    alone, among = (of_user(played(world, oldest, users)[1], 0) for users in (1, None))
    assert len(alone) > 5
    for name in ("item", "request_time", "position", "outcomes", "shown_at", "ended_at"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(among, name))


def test_a_policy_learns_of_what_has_ended_and_of_nothing_later(world):
    policy, ticks = played(world, newest)
    begins = [int(requests.time[0]) // TICK * TICK for requests in policy.asked]
    for place, shown in policy.told:
        assert shown.ended_at.max() <= begins[place]
        if place:
            assert shown.ended_at.min() > begins[place - 1] or place == 1
    told = sum(len(shown) for _, shown in policy.told)
    happened = sum(len(tick.shown) for tick in ticks)
    still_watching = sum(len(t.shown.select(t.shown.ended_at > begins[-1])) for t in ticks)
    assert told + still_watching == happened and told > 0


def test_times_follow_each_other_and_users_go_further_for_what_they_value(world):
    shown = Shown.together([tick.shown for tick in played(world, newest)[1]])
    assert (shown.shown_at > shown.request_time).all() and (shown.ended_at > shown.shown_at).all()
    watch = [task.name for task in world.tasks].index("watch_time")
    watched = (shown.ended_at - shown.shown_at) / 1_000
    np.testing.assert_allclose(watched, shown.outcomes[:, watch], atol=0.01)
    same = np.diff(shown.position) == 1
    assert (shown.shown_at[1:][same] > shown.ended_at[:-1][same]).all()
    worth = np.nan_to_num(shown.outcomes) @ world.value
    went_on = np.append(same, False)
    assert went_on[worth > 1].mean() > went_on[worth < 0.3].mean() > went_on[worth < -4].mean()


def test_what_was_seen_in_the_log_is_not_shown_again(world):
    visits = world.visits(world.log_end, world.end)
    _, ticks = played(world, oldest)
    first = ticks[0].shown
    again = list(play(world, Scripted(oldest), visits, TICK, [first]))
    for tick in again[:3]:
        pairs = set(zip(tick.shown.user.tolist(), tick.shown.item.tolist(), strict=True))
        assert not pairs & set(zip(first.user.tolist(), first.item.tolist(), strict=True))


def test_seen_items_agree_with_a_set(world):
    """A ring of bits against plain sets, as items are born and expire."""
    rng = np.random.default_rng(0)
    users = len(world.users)
    seen, known = SeenItems(world.items, users), set()
    for time in range(0, world.end - world.start, 7 * 3_600_000):
        seen.advance(time, time + TICK)
        alive = world.alive(world.start + time, world.start + time + TICK)
        for user in range(users):
            expected = [(user, item) in known for item in alive.tolist()]
            np.testing.assert_array_equal(seen.has(np.array([user]), alive), expected)
            assert seen.count[user] == sum(expected)
        pairs = {(int(rng.integers(users)), int(rng.choice(alive))) for _ in range(200)} - known
        known |= pairs
        user, item = np.array(sorted(pairs)).T
        seen.add(user, item)


def test_a_tick_in_which_a_user_could_visit_twice_is_refused(world):
    visits = world.visits(world.log_end, world.end)
    with pytest.raises(ConfigError, match="a tick of 26 minutes is too long"):
        next(play(world, Scripted(newest), visits, 26 * 60_000))
    with pytest.raises(ValueError, match=r"policy scripted gave \(1, 2\)"):
        next(play(world, Scripted(lambda r, k: np.zeros((1, 2), int)), visits, TICK))
    nobody = visits.at(slice(0, 0))
    assert list(play(world, Scripted(newest), nobody, TICK)) == []
