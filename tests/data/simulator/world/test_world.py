"""What is true of a world: by hand, at any moment, without a look ahead, the same alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtr

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator import simulate
from recsys.data.simulator.world.draws import Stream, normals, words
from recsys.data.simulator.world.world import World
from tests.data.simulator.conftest import load_config
from tests.data.simulator.world.conftest import TINY


def pairs(world: World, count: int, seed: int = 0):
    """Users, items that are alive, moments and surfaces."""
    rng = np.random.default_rng(seed)
    visits = world.visits(world.start, world.end)
    chosen = visits.at(rng.integers(0, len(visits), count))
    item = np.array([rng.choice(world.alive(t, t)) for t in chosen.time.tolist()])
    return chosen.user, item, chosen.time, chosen.surface


def test_probabilities_of_one_pair_by_hand(world):
    user, item, time, surface = pairs(world, 1, seed=3)
    u, i, since = user[0], item[0], time[0] - world.start
    config, users, catalogue = world.config, world.users, world.catalogue
    topic, author = catalogue.item_topic[i], catalogue.item_author[i]
    interest = users._stable[u, topic]
    if users._slot[u, topic] >= 0:
        cell = since // (config.interests.grid_hours * MILLISECONDS_PER_HOUR) + 6  # a day before
        interest += users._short_term[u, cell, users._slot[u, topic]]
    interest += config.world.regions.own_interest * (users.region[u] == world.items.region[i])
    age = since - world.items.published[i]
    appeal = catalogue.item_quality[i] + world.items._drift[i, age // MILLISECONDS_PER_HOUR]
    appeal -= config.world.life.ageing * age / MILLISECONDS_PER_DAY
    hour = words(config.seed, Stream.MOOD, user, np.array([since // MILLISECONDS_PER_HOUR]))
    mood = config.interests.mood_sd * normals(hour)[0]
    offset = config.surface_offsets[config.surfaces[surface[0]]]
    offset += config.media_offsets[config.media_types[catalogue.item_media[i]]]
    affinity = users._author[u, users._author_slot[u, author]]

    def eta(name: str, column: int, harm: str) -> float:
        r = config.dwell.response if name == "dwell" else config.actions[name]
        eta = r.intercept + users._propensity[u, column] + offset
        eta += r.interest * interest + r.author * affinity + r.quality * appeal + r.mood * mood
        weight = config.world.integrity.harm.get(harm, 0.0)
        return eta + weight * (1 - world.items.integrity[i])

    found = dict(
        zip(
            (task.name for task in world.tasks),
            world.probabilities(user, item, time, surface)[0],
            strict=True,
        )
    )
    for column, name in enumerate(config.logit_tasks):
        assert found[name] == pytest.approx(expit(eta(name, column, name)), rel=1e-4), name
    mean = eta("dwell", len(config.logit_tasks), "watch_time")
    mean += config.dwell.duration_exponent * catalogue.item_log_length[i]
    sd, cut = config.dwell.noise_sd, config.dwell.max_seconds
    seconds = np.exp(mean + sd**2 / 2) * ndtr((np.log(cut) - mean - sd**2) / sd)
    seconds += cut * ndtr((mean - np.log(cut)) / sd)
    assert found["watch_time"] == pytest.approx(seconds, rel=1e-4)
    value = sum(config.world.viewing.value.get(n, 0) * p for n, p in found.items() if p == p)
    assert world.expected_value(user, item, time, surface)[0] == pytest.approx(value, rel=1e-4)


def test_outcomes_are_as_frequent_as_the_probabilities(world):
    user, item, time, surface = pairs(world, 20_000)
    truth = world.probabilities(user, item, time, surface).astype(np.float64)
    drawn = world.outcomes(user, item, time, surface).astype(np.float64)
    for column, task in enumerate(world.tasks):
        seen = ~np.isnan(truth[:, column])
        np.testing.assert_array_equal(seen, ~np.isnan(drawn[:, column]))
        residual = drawn[seen, column] - truth[seen, column]
        assert abs(residual.sum()) < 4.5 * np.sqrt((residual**2).sum()), task.name
        high = truth[seen, column] > np.median(truth[seen, column])
        assert abs(residual[high].sum()) < 4.5 * np.sqrt((residual[high] ** 2).sum()), task.name


@given(st.integers(0, 10_000), st.integers(1, 60), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_a_pair_is_the_same_alone_in_a_batch_and_on_a_grid(world, seed, count, random):
    user, item, time, surface = pairs(world, count, seed)
    truth, drawn = (f(user, item, time, surface) for f in (world.probabilities, world.outcomes))
    order = list(range(count))
    random.shuffle(order)
    mixed = [column[order] for column in (user, item, time, surface)]
    np.testing.assert_array_equal(world.probabilities(*mixed), truth[order])
    np.testing.assert_array_equal(world.outcomes(*mixed), drawn[order])
    place = order[0]
    alone = [column[place : place + 1] for column in (user, item, time, surface)]
    np.testing.assert_array_equal(world.outcomes(*alone)[0], drawn[place])
    grid = user[:, None], item[None, :], time[:, None], surface[:, None]
    known = (world.items.published[item] + world.start)[None, :] <= time[:, None]
    on_grid = world.probabilities(*grid)
    np.testing.assert_array_equal(on_grid[place, place], truth[place])
    assert known[place, place] and on_grid.shape == (count, count, len(world.tasks))


def test_nothing_later_and_nobody_else_changes_a_probability(simulation):
    """A planted leak: drift, interests and visits after a moment are changed, and nothing is."""
    world, changed = World.open(simulation), World.open(simulation)
    user, item, time, surface = pairs(world, 500)
    moment = int(np.median(time))
    early = time <= moment
    given = [column[early] for column in (user, item, time, surface)]
    since = moment - world.start
    hour = np.maximum(since - world.items.published, 0) // MILLISECONDS_PER_HOUR
    later = np.arange(changed.items._drift.shape[1])[None, :] > hour[:, None]
    changed.items._drift[later] += 5
    cell = since // (world.config.interests.grid_hours * MILLISECONDS_PER_HOUR) + 6
    changed.users._short_term[:, cell + 1 :] += 5
    np.testing.assert_array_equal(changed.probabilities(*given), world.probabilities(*given))
    late = [column[~early] for column in (user, item, time, surface)]
    assert (changed.probabilities(*late) != world.probabilities(*late)).any()


def test_appeal_drifts_within_hours_and_falls_with_age(world):
    life = world.config.world.life
    item = np.flatnonzero(world.items.published > 0)
    born = world.items.published[item]
    quality = world.catalogue.item_quality[item]

    def drift(hours: int) -> np.ndarray:
        appeal = world.items.appeal(item, born + hours * MILLISECONDS_PER_HOUR)
        return appeal - quality + life.ageing * hours / 24

    start = drift(0)
    assert start.std() == pytest.approx(life.appeal_sd, rel=0.1)
    for hours in (1, 6, 11):
        kept = np.corrcoef(start, drift(hours))[0, 1]
        assert kept == pytest.approx(np.exp(-hours / life.appeal_hours), abs=0.08)
    within = world.items.appeal(item, born + 1), world.items.appeal(item, born + 60_000)
    np.testing.assert_allclose(*within, atol=1e-3)


def test_items_are_born_and_expire(world):
    life, items = world.config.world.life, world.items
    hours = (items.expires - items.published) / MILLISECONDS_PER_HOUR
    assert life.min_hours <= hours.min() and hours.max() <= life.max_hours + 1e-6
    for time in np.linspace(world.start, world.end - 1, 7).astype(int).tolist():
        later = time + 5 * 60_000
        since = np.array([time, later]) - world.start
        expected = (items.published <= since[0]) & (items.expires > since[1])
        assert set(world.alive(time, later)) == set(np.flatnonzero(expected))
        assert (np.diff(items.published[world.alive(time, later)]) >= 0).all()


def test_opens_and_visits_are_apart_and_no_user_visits_twice_soon(world):
    opens = world.opens(world.start, world.end)
    visits = world.visits(world.start, world.end)
    assert 0.3 < opens.visits.mean() < 0.9 and len(visits) == opens.visits.sum()
    assert (opens.visit_time >= opens.time).all() and (np.diff(visits.time) >= 0).all()
    order = np.lexsort((visits.time, visits.user))
    gaps = np.diff(visits.time[order])[np.diff(visits.user[order]) == 0]
    assert gaps.min() >= (world.config.world.opens.pause_minutes - 5) * 60_000
    some = world.visits(world.start, world.end, users=10)
    assert some.user.max() < 10 and len(some) == (visits.user < 10).sum()
    day = world.visits(world.start, world.start + MILLISECONDS_PER_DAY)
    assert (day.time < world.start + MILLISECONDS_PER_DAY).all() and len(day) < len(visits)


def test_a_visit_depends_on_the_user_and_the_hour(world):
    opens = world.opens(world.start, world.end)
    share = np.bincount(opens.user, opens.visits) / np.maximum(np.bincount(opens.user), 1)
    assert share[np.bincount(opens.user) > 5].std() > 0.1


def test_more_users_do_not_change_those_of_whole_blocks():
    made = [World(load_config("explore_small", *TINY, f"users={n}")) for n in (64, 80)]
    np.testing.assert_array_equal(made[0].users._stable, made[1].users._stable[:64])
    visits = [world.visits(world.start, world.end, users=64) for world in made]
    np.testing.assert_array_equal(visits[0].time, visits[1].time)


def test_a_world_opened_is_the_one_that_was_simulated(world):
    made = World(load_config("explore_small", *TINY))
    assert made.config == world.config
    given = pairs(made, 50)
    np.testing.assert_array_equal(made.outcomes(*given), world.outcomes(*given))


def test_what_cannot_be_played_is_one_sentence(world, tmp_path, small_config):
    with pytest.raises(DataError, match="recsys data simulate simulator=explore"):
        World.open(tmp_path)
    simulate(small_config, tmp_path / "log")
    assert "world" not in json.loads((tmp_path / "log" / "simulation.json").read_text())["config"]
    with pytest.raises(ConfigError, match=r"simulator\.world is null"):
        World.open(tmp_path / "log")
    user, item, _, surface = pairs(world, 1)
    with pytest.raises(ValueError, match="before the world's first day"):
        world.probabilities(user, item, np.array([world.end]), surface)


def test_settings_of_a_world_that_do_not_fit():
    world = load_config("explore_small").world
    with pytest.raises(ConfigError, match=r"viewing\.value names skip, which is no task"):
        replace(world, viewing=replace(world.viewing, value={"skip": 1.0}))
    with pytest.raises(ConfigError, match=r"min_hours=50\.0 is more than"):
        replace(world.life, min_hours=50.0)
    with pytest.raises(ConfigError, match=r"opens\.device_shares adds up to 0"):
        replace(world, opens=replace(world.opens, device_shares={"high": 0.0}))
    with pytest.raises(ConfigError, match=r"simulator\.actions has the tasks .*see_less"):
        replace(load_config("explore_small"), world=None)
