"""Lists made when the app is opened: what they save and waste, and what cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.core.composition import load
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.core.paths import conf_dir
from recsys.data.simulator import simulate
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.world import World
from recsys.online.compare import OnlineComparison, OnlineConfig, compare_online
from recsys.online.funnel import FunnelPolicy
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.ledger import noted
from recsys.serving.funnel.prefetch.habits import FEATURES
from recsys.serving.funnel.prefetch.prefetcher import Prefetcher, read_prefetcher
from recsys.serving.funnel.prefetch.train import PrefetcherConfig, train_prefetcher
from tests.data.simulator.conftest import load_config

SMALL = (
    "users=80", "catalogue.items=2400", "catalogue.authors=100", "catalogue.warm_up_days=1",
    "days=1", "fit_days=0", "choose_days=0", "report_days=1", "activity.scale=0.08",
    "world.recommender.shortlist=100",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OnlineComparison]:
    """A folder with a log, the ledger of a play, and a prefetcher; what came of the play."""
    folder = tmp_path_factory.mktemp("advance")
    simulate(load_config("marketplace", *SMALL), folder / "log")
    found = compare_online(asked(folder, ledger=str(folder / "ledger")))
    train_prefetcher(PrefetcherConfig(str(folder / "ledger"), str(folder / "models.json")))
    return folder, found


def asked(folder: Path, *changes: str, **more: Any) -> OnlineConfig:
    config = OnlineConfig(str(folder / "log"), "explore", "popular", list(changes))
    return replace(config, **more)


def values(found: OnlineComparison) -> dict[str, float]:
    return {one.name: one.policy.value for one in found.metrics}


def test_opens_are_noted_with_what_was_known_then(made: tuple[Path, OnlineComparison]) -> None:
    folder, found = made
    opens = pl.read_parquet(folder / "ledger" / "played" / "opens.parquet")
    world = World.open(folder / "log")
    truth = world.opens(world.log_end, world.end)
    assert abs(len(opens) - len(truth)) <= 5  # those before the first visit's tick
    visited = opens.filter(pl.col("visited_at").is_not_null())
    assert abs(len(visited) - found.visits) <= 5 < len(visited) < len(opens)
    delay = visited["visited_at"] - visited["opened_at"]
    assert delay.min() >= 0 and delay.max() <= 300_000
    assert (visited["wait_ms"] > 0).all() and not opens["listed"].any()
    first = opens.filter(pl.col("opens") > 0)  # what the log has is known
    assert len(first) > 0.5 * len(opens)
    assert set(FEATURES) <= set(opens.columns)


def test_lists_in_advance_are_shown_at_once_or_wasted(
    made: tuple[Path, OnlineComparison], tmp_path: Path
) -> None:
    folder, before = made
    models = f"cache.prefetch.models={folder / 'models.json'}"
    without = values(before)
    all_of_them = asked(
        folder, models, "cache.prefetch.visit=0", "cache.prefetch.latency_ms=0",
        ledger=str(tmp_path / "ledger"), fresh_every=3,
    )  # fmt: skip
    found = compare_online(all_of_them)
    every = values(found)
    assert every["in_advance_share"] > 0.97 and 0.2 < every["wasted_share"] < 0.8
    # a list waits for half an hour: fewer are made than the app is opened
    assert 100 < every["pairs_scored"] < 100 * 1 / (1 - every["wasted_share"]) + 1
    assert every["end_to_end_p75_ms"] < 0.4 * without["end_to_end_p75_ms"]
    assert every["value_per_session"] > 0.7 * without["value_per_session"]
    (ndcg,) = found.fresh.values()
    assert 0.9 < ndcg.value <= 1.05
    lists = [one for requests, _ in noted(tmp_path / "ledger") for one in requests.moment.tolist()]
    assert len(lists) == found.visits  # those that were shown, at their visits
    some = values(compare_online(asked(folder, models, "cache.prefetch.latency_ms=900")))
    assert 0 < some["in_advance_share"] < 0.5 and some["wasted_share"] < every["wasted_share"]
    none = values(compare_online(asked(folder, models, "cache.prefetch.visit=1")))
    for name in ("value_per_session", "pairs_scored", "end_to_end_p75_ms", "session_depth"):
        assert none[name] == without[name]


def test_an_old_list_is_not_shown(made: tuple[Path, OnlineComparison]) -> None:
    folder, _ = made
    world = World.open(folder / "log")
    config = load(conf_dir() / "funnel" / "explore.yaml", FunnelConfig)
    shares = []
    for hours in (1e-7, 0.01, 0.5):
        prefetch = replace(
            config.cache.prefetch, models=str(folder / "models.json"), visit=0.0, latency_ms=0.0,
            max_age_hours=hours,
        )  # fmt: skip
        policy = FunnelPolicy(
            world, replace(config, cache=replace(config.cache, prefetch=prefetch))
        )
        visits = world.visits(world.log_end, world.end, 30)
        opens = world.opens(world.log_end, world.end, 30)
        ticks = list(play(world, policy, visits, 300_000, opens=opens))
        early = [one.answer.asked[one.answer.in_advance] for one in ticks if len(one.visits)]
        moments = [one.visits.time[one.answer.in_advance] for one in ticks if len(one.visits)]
        ages = np.concatenate(moments) - np.concatenate(early)
        assert not len(ages) or 0 <= ages.min() <= ages.max() <= hours * 3_600_000
        shares.append(len(ages) / len(visits))
    assert shares[0] == 0 < shares[1] < shares[2]


def test_what_cannot_be_used_is_one_sentence(
    made: tuple[Path, OnlineComparison], tmp_path: Path
) -> None:
    folder, _ = made
    world, models = World.open(folder / "log"), folder / "models.json"
    config = load(conf_dir() / "funnel" / "explore.yaml", FunnelConfig)

    def policy(path: Path, latency_ms: float = 400.0) -> FunnelPolicy:
        prefetch = replace(config.cache.prefetch, models=str(path), latency_ms=latency_ms)
        return FunnelPolicy(world, replace(config, cache=replace(config.cache, prefetch=prefetch)))

    import lightgbm

    visit = lightgbm.Booster(model_str=read_prefetcher(models)["visit"])
    Prefetcher(visit, None).save(tmp_path / "no_wait.json")
    with pytest.raises(ConfigError, match="cannot say how long a user would wait"):
        policy(tmp_path / "no_wait.json")
    assert policy(tmp_path / "no_wait.json", latency_ms=0).in_advance.used
    with pytest.raises(ArtifactError, match="give what `recsys funnel prefetcher` wrote"):
        policy(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match="has no openings of the app"):
        train_prefetcher(PrefetcherConfig(str(folder / "log"), str(tmp_path / "out.json")))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"mine.txt"):
        train_prefetcher(PrefetcherConfig(str(folder / "ledger"), str(tmp_path / "mine.txt")))
