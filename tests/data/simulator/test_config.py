from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.data.simulator.block import USERS_PER_BLOCK, simulate_block
from recsys.data.simulator.catalogue import make_catalogue
from recsys.data.simulator.config import DWELL_TASKS, LOGIT_TASKS, TASKS
from recsys.data.simulator.population import draw_impressions


@pytest.mark.parametrize("name", ["default", "demo", "long", "nxtpost", "paper"])
def test_shipped_configurations_are_valid(make_config, name):
    config = make_config(name)
    levels = list(config.activity.quantiles)
    assert levels == sorted(levels) and levels[0] == 0 and levels[-1] == 1
    bounds = config.split_bounds
    assert bounds["fit"][1] == bounds["choose"][0]
    assert bounds["choose"][1] == bounds["report"][0]
    assert bounds["report"][1] == config.end_ms
    assert config.end_ms - config.start_ms == config.days * MILLISECONDS_PER_DAY


def test_demo_and_paper_keep_the_frozen_calibration(make_config):
    default = make_config("default")
    for name in ("demo", "paper"):
        config = make_config(name)
        assert config.actions == default.actions
        assert config.dwell == default.dwell
        assert config.interests == default.interests
        assert config.exposure == default.exposure


def test_posts_of_nxtpost_live_for_days(make_config):
    """Figure 2 of NxtPost: 23 % of a week's items are engaged in the next week, 10 % in the one
    after; measured on the items that 1,280 of the 5,000 users are shown, in the same proportion.
    """
    config = make_config("nxtpost", "users=1280", "catalogue.items=5120", "catalogue.authors=102")
    catalogue = make_catalogue(config, np.random.default_rng(0))
    weeks: list[set[int]] = [set() for _ in range(4)]
    for seed in range(20):
        block = simulate_block(config, catalogue, USERS_PER_BLOCK, np.random.default_rng(seed))
        engaged = np.flatnonzero(block.labels["liked"] == 1)
        week = block.time[engaged] // (7 * MILLISECONDS_PER_DAY)
        for number in range(4):
            weeks[number] |= set(block.impressions.item[engaged][week == number].tolist())
    kept = [len(weeks[0] & later) / len(weeks[0]) for later in weeks[1:]]
    assert 0.15 < kept[0] < 0.30
    assert 0.03 < kept[1] < 0.12
    assert kept[2] <= kept[1] + 0.02


def test_the_ten_tasks_of_table_2():
    assert len(TASKS) == 10
    assert {task.name for task in TASKS} == set(LOGIT_TASKS) | set(DWELL_TASKS)


def test_history_lengths_follow_quantiles_and_scale(make_config):
    for scale in (0.1, 1.0):
        config = make_config("default", f"activity.scale={scale}")
        drawn = draw_impressions(config, 40_000, np.random.default_rng(0))
        for level in (0.1, 0.5, 0.9, 0.99):
            expected = config.activity.quantiles[level] * scale
            assert np.quantile(drawn, level) == pytest.approx(expected, rel=0.06)


def test_paper_setting_has_30000_events_once_cut(make_config):
    config = make_config("paper")
    drawn = draw_impressions(config, 100_000, np.random.default_rng(0))
    assert np.minimum(drawn, 35_000).mean() == pytest.approx(30_000, rel=0.02)


def test_wrong_configurations_are_named(small_config):
    with pytest.raises(ConfigError, match="liked"):
        dataclasses.replace(small_config, actions={})
    with pytest.raises(ConfigError, match="make the log longer"):
        dataclasses.replace(small_config, fit_days=100)
    with pytest.raises(ConfigError, match="must divide"):
        dataclasses.replace(small_config, gap_hours=25)
    with pytest.raises(ConfigError, match="surface_offsets"):
        dataclasses.replace(small_config, surface_offsets={"feed": 0.0})
    few_authors = dataclasses.replace(small_config.catalogue, authors=3, topics=4)
    with pytest.raises(ConfigError, match=r"authors=3 is fewer than .*topics=4"):
        dataclasses.replace(small_config, catalogue=few_authors)
    topics = small_config.catalogue.topics
    interests = dataclasses.replace(small_config.interests, topics_per_user=topics)
    with pytest.raises(ConfigError, match=rf"topics_per_user={topics} is not between 1 and"):
        dataclasses.replace(small_config, interests=interests)


def test_as_many_authors_as_topics_are_enough(small_config):
    topics = small_config.catalogue.topics
    catalogue = dataclasses.replace(small_config.catalogue, authors=topics)
    config = dataclasses.replace(small_config, catalogue=catalogue)
    made = make_catalogue(config, np.random.default_rng(0))
    block = simulate_block(config, made, 8, np.random.default_rng(0))
    assert len(block.time)
