"""The log of a world: the contract, its propensities, and that it is read back as it happened."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.data.contract.schema import LOG_SCHEMA
from recsys.data.simulator import simulate
from recsys.data.simulator.world.log import WORLD_ACTIONS, read_shown
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.recommender import LoggingRecommender
from recsys.data.sources.simulated import SimulatedSource


def read(folder, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / name / "*.parquet")


def test_the_source_yields_the_contract(simulation, world):
    source = SimulatedSource(simulation)
    events = pl.concat(source.events())
    assert dict(events.schema) == {str(name): dtype for name, dtype in LOG_SCHEMA.items()}
    assert source.actions == WORLD_ACTIONS and "see_less" in source.actions.negative
    assert set(events["action_type"].unique()) == {
        *("impression", *(task.name for task in world.tasks if task.name != "watch_time"))
    }
    rows = pl.concat(source.requests())
    sides = {"user": source.users(), "item": source.items(), "context": rows}
    for feature in source.features:
        assert feature.name in sides[feature.side].columns
        assert sides[feature.side][feature.name].null_count() == 0
    assert [task.name for task in source.tasks][-1] == "see_less"
    assert set(events["item_id"].unique()) <= set(source.items()["item_id"])
    assert source.items()["published_at"].max() < world.log_end  # nothing of what is to come
    assert events["timestamp"].min() >= world.start


def test_parts_do_not_change_the_log(simulation, world, tmp_path):
    simulate(world.config, tmp_path / "log")
    assert len(list((simulation / "log").iterdir())) > len(list((tmp_path / "log/log").iterdir()))
    for name in ("log", "requests"):
        assert_frame_equal(read(simulation, name), read(tmp_path / "log", name))
    first, second = (
        json.loads((folder / "simulation.json").read_text())
        for folder in (simulation, tmp_path / "log")
    )
    assert first == second


def test_actions_lie_within_the_watching_of_their_impression(simulation):
    log = read(simulation, "log")
    is_shown = pl.col("action_type") == "impression"
    shown = log.filter(is_shown).select(
        "user_id", "item_id", begins="timestamp", watched="dwell_time"
    )
    assert shown.select("user_id", "item_id").is_unique().all()  # nothing is shown twice
    acted = log.filter(~is_shown).join(shown, on=["user_id", "item_id"])
    assert len(acted) == len(log.filter(~is_shown))
    after = acted["timestamp"] - acted["begins"]
    assert (after > 0).all() and (after <= acted["watched"] * 1_000 + 2).all()


def test_request_rows_have_labels_propensities_and_the_truth(simulation, world):
    rows, log = read(simulation, "requests"), read(simulation, "log")
    bounds = world.config.split_bounds
    assert rows["request_time"].min() >= bounds["fit"][0]
    assert rows["request_time"].max() < world.log_end
    impressions = log.filter(pl.col("action_type") == "impression")
    assert len(rows) == len(impressions)  # request_share is 1, and all days are split
    liked = log.filter(pl.col("action_type") == "liked").select("user_id", "item_id")
    positive = rows.filter(pl.col("label_liked") == 1).select("user_id", "item_id")
    assert_frame_equal(liked, positive, check_row_order=False)
    truth = world.probabilities(
        *(rows[name].to_numpy() for name in ("user_id", "item_id", "request_time")),
        rows["surface"]
        .replace_strict({n: c for c, n in enumerate(world.config.surfaces)})
        .to_numpy()
        .astype(np.int8),
    )
    liked_column = [task.name for task in world.tasks].index("liked")
    np.testing.assert_array_equal(rows["best_absolute_liked"], truth[:, liked_column])
    assert rows["propensity"].is_between(0, 1, closed="right").all()
    best = json.loads((simulation / "simulation.json").read_text())["best"]["report"]["liked"]
    assert 0 < best["best_absolute_ne"] < 1 and "best_within_reach_ne" not in best


def test_random_exposure_has_its_share_and_weighs_the_catalogue(simulation, world):
    """Items outside every shortlist come by the random slots alone: ε of the slots or less."""
    config = world.config.world.recommender
    shown = read_shown(world, simulation, world.start)
    # a propensity of ε / R is one of an item with next to no weight
    alive = np.array([len(world.alive(t, t + 1)) for t in shown.request_time[::50].tolist()])
    floor = config.random_share / alive
    assert (shown.propensity[::50] >= floor * 0.999).all()
    # the mean of 1 / propensity is the number of items that could have been shown
    first = shown.position == 0
    weighed = 1 / shown.propensity[first].astype(np.float64)
    could = np.array([len(world.alive(t, t + 1)) for t in shown.request_time[first].tolist()])
    error = weighed.std() / np.sqrt(len(weighed))
    assert abs(weighed.mean() - could.mean()) < 4.5 * error + 0.1 * could.mean()


def test_the_log_is_read_back_as_it_happened(simulation, world):
    since = world.log_end - 86_400_000
    shown = read_shown(world, simulation, since)
    visits = world.visits(world.start, world.log_end)
    recommender = LoggingRecommender(world, world.config.seed)
    ticks = play(world, recommender, visits, 5 * 60_000)
    happened = [tick.shown.select(tick.shown.request_time >= since) for tick in ticks]
    for name in ("user", "item", "request_time", "surface", "position", "shown_at", "ended_at"):
        expected = np.concatenate([getattr(one, name) for one in happened])
        np.testing.assert_array_equal(getattr(shown, name), expected, err_msg=name)
    np.testing.assert_array_equal(
        shown.outcomes, np.concatenate([one.outcomes for one in happened])
    )


def test_item_embeddings_are_of_published_items_alone(world, tmp_path):
    config = dataclasses.replace(world.config, users=5)
    config = dataclasses.replace(
        config, post_embedding=dataclasses.replace(config.post_embedding, width=4)
    )
    simulate(config, tmp_path / "log")
    embedded = pl.read_parquet(tmp_path / "log/post_embeddings.parquet")
    items = pl.read_parquet(tmp_path / "log/items.parquet")
    assert embedded["item_id"].to_list() == items["item_id"].to_list()


@pytest.mark.parametrize("name", ["explore", "explore_small"])
def test_shipped_worlds_are_valid(make_config, name):
    config = make_config(name)
    assert config.tasks[-1].name == "see_less" and len(config.tasks) == 10
    assert config.sessions.max_items == config.world.viewing.items
