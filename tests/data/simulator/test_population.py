from __future__ import annotations

import numpy as np
import pytest

from recsys.data.simulator.catalogue import sampling_table
from recsys.data.simulator.population import make_population
from recsys.data.simulator.sessions import make_sessions


def test_sampling_table_holds_each_index_in_its_share():
    table = sampling_table(np.array([0.5, 0.25, 0.25]), 8)
    assert table.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_items_of_an_author_lie_in_order_of_publication(catalogue):
    same_author = np.diff(catalogue.item_author) == 0
    assert (np.diff(catalogue.item_published)[same_author] >= 0).all()
    counts = np.diff(catalogue.author_items)
    assert np.array_equal(np.repeat(np.arange(len(counts)), counts), catalogue.item_author)


def test_short_term_interest_is_a_stationary_ornstein_uhlenbeck_process(small_config, catalogue):
    population = make_population(small_config, catalogue, 400, np.random.default_rng(1))
    path = population.short_term
    sd = small_config.interests.short_term_sd
    for cell in (0, path.shape[1] // 2, -1):
        assert path[:, cell].std() == pytest.approx(sd, rel=0.05)
    day = small_config.gap_hours // small_config.interests.grid_hours
    kept = np.mean(path[:, day:] * path[:, :-day]) / sd**2
    expected = np.exp(-small_config.gap_hours / small_config.interests.short_term_hours)
    assert kept == pytest.approx(expected, abs=0.03)


def test_own_topics_are_distinct_and_found_by_their_slot(small_config, catalogue):
    population = make_population(small_config, catalogue, 50, np.random.default_rng(2))
    own = population.own_topics
    assert all(len(set(topics)) == own.shape[1] for topics in own.tolist())
    slots = np.take_along_axis(population.slot, own, axis=1)
    assert np.array_equal(slots, np.broadcast_to(np.arange(own.shape[1]), own.shape))
    assert (population.slot >= 0).sum() == own.size


def test_sessions_hold_exactly_the_impressions_meant(small_config, catalogue):
    rng = np.random.default_rng(3)
    population = make_population(small_config, catalogue, 64, rng)
    sessions = make_sessions(small_config, population, rng)
    shown = np.bincount(
        sessions.user[sessions.request_session], weights=sessions.request_items, minlength=64
    )
    assert np.array_equal(shown, population.impressions)
    assert sessions.request_items.max() <= small_config.sessions.max_items
    assert (np.diff(sessions.request_session) >= 0).all()
    same_user = np.diff(sessions.user) == 0
    assert (np.diff(sessions.user) >= 0).all()
    assert (np.diff(sessions.start)[same_user] >= 0).all()
