"""Waits from end to end: by hand, the same whatever is beside, and worlds that cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.data.simulator.world.waiting import wait_ms
from recsys.data.simulator.world.world import World
from tests.data.simulator.conftest import load_config
from tests.data.simulator.world.conftest import TINY

LATENCY = (
    "world.latency.network_ms={wifi:200,mobile:200,slow:200}",
    "world.latency.device_ms={high:50,middle:50,low:50}",
)


def world_with(*settings: str) -> World:
    return World(load_config("marketplace", *TINY, "world.recommender.shortlist=50", *settings))


def test_a_wait_by_hand() -> None:
    world = world_with(*LATENCY, "world.latency.user_sd=0", "world.latency.visit_sd=0")
    time = world.visits(world.start, world.end).time[:1]
    user, pairs = np.array([1]), np.array([100.0])

    def wait(before: int, scored: float = 1, cached: float = 0) -> float:
        (found,) = wait_ms(world, user, time, time - before, scored * pairs, cached * pairs)
        return float(found)

    # server 50, 100 pairs of 4 or of 0.4
    assert wait(0) == pytest.approx(50 + 200 + 50 + 400)
    assert wait(0, 0.5, 0.5) == pytest.approx(50 + 200 + 50 + 220)
    assert wait(500) == pytest.approx(50 + 150)
    assert wait(60_000) == pytest.approx(50)
    assert np.isnan(wait(0, np.nan))


def test_draws_belong_to_users_and_visits() -> None:
    world = world_with()
    visits = world.visits(world.start, world.end)
    none = np.zeros(len(visits))
    whole = wait_ms(world, visits.user, visits.time, visits.time, none, none)
    some = np.arange(len(visits))[::7]
    part = visits.at(some)
    alone = wait_ms(world, part.user, part.time, part.time, none[some], none[some])
    assert (alone == whole[some]).all() and len(np.unique(whole)) == len(whole)
    slow = list(world.world.opens.network_shares).index("slow")
    is_slow = world.users.network[visits.user] == slow
    assert np.median(whole[is_slow]) > 3 * np.median(whole[~is_slow])


def test_notifications_make_visits_likelier_and_change_nothing_else() -> None:
    with_them, without = world_with(), world_with("world.opens.notification_share=0")
    opens, same = (one.opens(one.start, one.end) for one in (with_them, without))
    assert (opens.time == same.time).all() and not same.notified.any()
    assert (opens.visits >= same.visits).all()
    assert (opens.visits == same.visits)[~opens.notified].all()
    assert opens.visits[opens.notified].mean() > same.visits[opens.notified].mean()


def test_a_world_without_latencies_has_no_waits_and_one_that_forgets_a_device_is_none() -> None:
    silent = world_with("world.latency=null")
    visits = silent.visits(silent.start, silent.end).at(slice(0, 3))
    waits = wait_ms(silent, visits.user, visits.time, visits.time, np.ones(3), np.ones(3))
    assert np.isnan(waits).all()
    found = load_config("marketplace").world
    assert found is not None
    opens = replace(found.opens, device_shares={"high": 0.5, "old": 0.5})
    with pytest.raises(ConfigError, match=r"latency.device_ms says nothing of old"):
        replace(found, opens=opens)
