"""Metrics by hand, paired intervals, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.data.simulator import simulate
from recsys.data.simulator.world.play import Recommended, Tick
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World
from recsys.evaluation.paired import Bootstrap
from recsys.online.compare import OnlineConfig, compare_online, compared, played
from recsys.online.metrics import WAITS, UserSums
from recsys.online.policies import make_policy
from tests.data.simulator.conftest import load_config
from tests.data.simulator.world.conftest import TINY

TICK = 5 * 60_000


def tick_by_hand(world) -> Tick:
    """Two visits: three items of two authors, then nothing at all."""
    visits = world.visits(world.start, world.end).at(slice(40, 42))
    author = world.catalogue.item_author
    same = np.flatnonzero(author == author[0])[:2]
    item = np.array([same[0], int(np.flatnonzero(author != author[0])[0]), same[1]])
    outcomes = np.zeros((3, len(world.tasks)), np.float32)
    names = [task.name for task in world.tasks]
    outcomes[0, names.index("liked")] = outcomes[1, names.index("liked")] = 1
    outcomes[2, names.index("see_less")] = 1
    outcomes[:, names.index("watch_time")] = [10, 20, 30]
    outcomes[1, names.index("video_complete")] = np.nan
    published = world.items.published[item] + world.start
    hours = np.array([1, 5, 7]) * 3_600_000  # old
    zeros = np.zeros(3, np.int64)
    shown = Shown(
        zeros, np.full(3, visits.user[0]), item, published + hours, zeros.astype(np.int8),
        np.arange(3), published, published, outcomes, np.full(3, np.nan, np.float32),
    )  # fmt: skip
    answer = Recommended(np.full((2, 3), -1), pairs_scored=np.array([300, 200]))
    return Tick(visits, shown, 0.01, 0.006, answer, np.array([2, 0]), np.array([700.0, 90.0]))


def test_metrics_by_hand(world):
    sums = UserSums(world, new_hours=6.0).take([tick_by_hand(world)])
    found = {m.name: m for m in compared(sums, sums, Bootstrap(resamples=10)).metrics}

    def value(name):
        assert found[name].difference.value == 0
        return found[name].policy.value

    weights = world.config.world.viewing.value
    expected = 2 * weights["liked"] + weights["see_less"] + 60 * weights["watch_time"]
    assert value("value_per_session") == pytest.approx(expected / 2, rel=1e-5)
    assert value("session_depth") == 1.5
    assert value("authors_per_session") == 1.0
    assert value("liked_per_impression") == pytest.approx(2 / 3)
    assert value("see_less_per_impression") == pytest.approx(1 / 3)
    assert value("watch_time_seconds_per_impression") == 20
    assert value("video_complete_per_impression") == 0
    assert value("new_item_share") == pytest.approx(2 / 3)
    assert value("refused_per_session") == 1
    assert value("latency_ms") == pytest.approx(5)
    assert value("processor_ms") == pytest.approx(3)
    assert value("pairs_scored") == 250
    assert value("end_to_end_p50_ms") == 90 and value("end_to_end_p75_ms") == 700


def test_a_policy_that_does_not_count_pairs_has_none(world):
    tick = tick_by_hand(world)
    silent = replace(tick, answer=Recommended(tick.answer.items))
    sums = UserSums(world, 6.0).take([silent])
    [pairs] = [m for m in compared(sums, sums, Bootstrap(5)).metrics if m.name == "pairs_scored"]
    assert np.isnan(pairs.policy.value) and np.isnan(pairs.difference.low)


def test_a_policy_against_itself_differs_in_nothing_but_its_clock(world):
    visits = world.visits(world.start, world.end).at(slice(0, 300))
    sums = [played(world, make_policy("popular", world), visits, TICK, 6.0) for _ in range(2)]
    for metric in compared(*sums, Bootstrap(resamples=50)).metrics:
        # no pair is predicted, and this world says nothing of waits
        if metric.name not in (
            "latency_ms",
            "processor_ms",
            "cached_share",
            "wasted_share",
            *WAITS,
        ):
            assert metric.difference.value == metric.difference.low == metric.difference.high == 0


def test_pairing_narrows_the_interval(world):
    """Same users and draws: the difference is known better than either value."""
    visits = world.visits(world.start, world.end).at(slice(0, 1500))
    sums = [
        played(world, make_policy(name, world), visits, TICK, 6.0)
        for name in ("popular", "recent_popular")
    ]
    found = {m.name: m for m in compared(*sums, Bootstrap(resamples=300)).metrics}
    depth = found["session_depth"]
    width = depth.policy.high - depth.policy.low
    assert depth.difference.high - depth.difference.low < width


def test_what_cannot_be_played_is_one_sentence(tmp_path):
    folder = tmp_path / "log"
    simulate(load_config("explore_small", *TINY, "users=3", "days=3"), folder)
    asked = {"simulation": str(folder), "policy": "random", "against": "popular"}
    with pytest.raises(ConfigError, match="days=9 is more than the world has after its log"):
        compare_online(OnlineConfig(**asked, days=9))
    with pytest.raises(ConfigError, match="nobody visits in that time"):
        compare_online(OnlineConfig(**asked, days=1e-6))
    with pytest.raises(ConfigError, match="policy bets is unknown"):
        compare_online(OnlineConfig(**(asked | {"policy": "bets"})))


def impressions(ledger: Path) -> pl.DataFrame:
    events = pl.read_parquet(ledger / "played" / "log" / "*.parquet")
    return events.filter(pl.col("action_type") == "impression")


def test_a_play_goes_on_where_another_ended(tmp_path: Path) -> None:
    folder, first, second = (tmp_path / name for name in ("log", "first", "second"))
    simulate(load_config("explore_small", *TINY, "users=40"), folder)
    asked = {"simulation": str(folder), "policy": "explore", "against": "random"}
    begun = compare_online(OnlineConfig(**asked, days=0.6, ledger=str(first)))
    after = {**asked, "after": str(first)}
    ended = compare_online(OnlineConfig(**after, days=0.3, ledger=str(second)))
    world = World.open(folder)
    last = int(impressions(first)["request_time"].max())
    assert last < int(impressions(second)["request_time"].min())
    both = world.visits(world.log_end, last + 1 + round(0.3 * 86_400_000))
    assert begun.visits + ended.visits == len(both)
    # what was seen in the first play is not offered again, nor what was seen in the log
    pair = ["user_id", "item_id"]
    assert impressions(first).join(impressions(second), on=pair).is_empty()
    refused = {metric.name: metric for metric in ended.metrics}["refused_per_session"]
    assert refused.policy.value == 0

    with pytest.raises(ConfigError, match=f"more than the world has after {first}"):
        compare_online(OnlineConfig(**after, days=0.9))
    simulate(load_config("explore_small", *TINY, "users=10"), tmp_path / "other")
    with pytest.raises(DataError, match="was played in another world than that of"):
        compare_online(OnlineConfig(**{**after, "simulation": str(tmp_path / "other")}))
    (first / "played" / "play.json").unlink()
    with pytest.raises(DataError, match="is missing; play it with"):
        compare_online(OnlineConfig(**after, days=0.3))
