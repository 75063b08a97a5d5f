from __future__ import annotations

import dataclasses
import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import ACTION_TYPES, LOG_SCHEMA, Split
from recsys.data.simulator import simulate
from recsys.data.simulator.config import TASKS
from recsys.data.sources.simulated import SimulatedSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_config):
    path = tmp_path_factory.mktemp("simulated")
    simulate(small_config, path, impressions_per_part=10_000)
    return path


def read(path, name: str) -> pl.DataFrame:
    return pl.read_parquet(path / name / "*.parquet")


def test_the_same_seed_gives_the_same_log_however_it_is_chunked(folder, small_config, tmp_path):
    simulate(small_config, tmp_path)
    assert len(list((folder / "log").iterdir())) > len(list((tmp_path / "log").iterdir()))
    for name in ("log", "requests"):
        assert_frame_equal(read(folder, name), read(tmp_path, name))
    first, second = (json.loads((p / "simulation.json").read_text()) for p in (folder, tmp_path))
    assert first["counts"] == second["counts"]
    assert first["best"]["report"]["liked"] == pytest.approx(second["best"]["report"]["liked"])


def test_another_seed_gives_another_log_and_replaces_the_old_one(small_config, tmp_path):
    quick = dataclasses.replace(small_config, users=70)
    simulate(quick, tmp_path, impressions_per_part=2_000)
    before = read(tmp_path, "log")
    notes = tmp_path / "log" / "notes.txt"
    notes.write_text("somebody else's")
    other = dataclasses.replace(quick, seed=quick.seed + 1)
    with pytest.raises(ConfigError, match=r"log/notes\.txt in it was not written by recsys"):
        simulate(other, tmp_path)
    assert notes.exists()
    notes.unlink()
    simulate(other, tmp_path)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["part-00000.parquet"]
    assert not before.equals(read(tmp_path, "log"))


def test_more_users_do_not_change_those_of_whole_blocks(small_config, tmp_path):
    for users in (64, 128):
        config = dataclasses.replace(small_config, users=users)
        simulate(config, tmp_path / str(users))
    longer = read(tmp_path / "128", "log").filter(pl.col("user_id") < 64)
    assert_frame_equal(read(tmp_path / "64", "log"), longer)


def test_the_log_is_in_the_contract(folder):
    log = read(folder, "log")
    assert dict(log.schema) == {str(name): dtype for name, dtype in LOG_SCHEMA.items()}
    assert set(log["action_type"].unique()) <= set(ACTION_TYPES)
    assert log.select(pl.exclude("dwell_time", "video_duration").null_count()).row(0) == (0,) * 8
    is_impression = pl.col("action_type") == "impression"
    assert log.filter(is_impression)["dwell_time"].null_count() == 0
    assert log.filter(~is_impression)["dwell_time"].count() == 0
    is_video = log["media_type"] == "video"
    assert (log["video_duration"].is_not_null() == is_video).all()
    assert log["dwell_time"].drop_nulls().min() >= 0


def test_labels_agree_with_explicit_events_in_the_log(folder):
    log, rows = read(folder, "log"), read(folder, "requests")
    impressions = log.filter(pl.col("action_type") == "impression")
    keys = ["user_id", "item_id"]
    shown = (
        rows.sort("request_time")
        .with_row_index("row")
        .join_asof(
            impressions.select(*keys, "timestamp", "dwell_time").sort("timestamp"),
            left_on="request_time",
            right_on="timestamp",
            by=keys,
            strategy="forward",
            check_sortedness=False,
        )
    )
    assert shown["label_watch_time"].equals(shown["dwell_time"].alias("label_watch_time"))
    for task in ("liked", "skip", "video_complete", "profile_visit"):
        actions = log.filter(pl.col("action_type") == task).select(*keys, acted=pl.col("timestamp"))
        found = shown.join(actions, on=keys).filter(
            (pl.col("acted") > pl.col("timestamp"))
            & (pl.col("acted") <= pl.col("timestamp") + pl.col("dwell_time") * 1000 + 2)
        )
        positive = shown.filter(pl.col(f"label_{task}") == 1)["row"]
        assert set(found["row"]) == set(positive), task


def test_request_rows_lie_in_the_split_bounds_and_carry_both_truths(folder, small_config):
    rows = read(folder, "requests")
    bounds = small_config.split_bounds
    assert rows["request_time"].min() >= bounds[Split.FIT][0]
    assert rows["request_time"].max() < bounds[Split.REPORT][1]
    assert read(folder, "log")["timestamp"].min() < bounds[Split.FIT][0]
    for task in TASKS:
        for column in (f"best_absolute_{task.name}", f"best_within_reach_{task.name}"):
            assert rows[column].null_count() == rows[task.column].null_count()
            if task.name != "watch_time":
                assert rows[column].drop_nulls().is_between(0, 1).all()
    sizes = rows.group_by("user_id", "request_time").len()["len"]
    assert sizes.max() <= small_config.sessions.max_items


def test_the_description_has_counts_and_best_metrics(folder):
    description = json.loads((folder / "simulation.json").read_text())
    log, rows = read(folder, "log"), read(folder, "requests")
    counts = description["counts"]
    assert counts["impressions"] + counts["explicit_events"] == len(log)
    assert counts["rows"] == len(rows)
    assert counts["requests"] == rows.select("user_id", "request_time").n_unique()
    best = description["best"]["fit"]["skip"]
    assert best["best_absolute_ne"] < best["best_within_reach_ne"] < 1
    watch = description["best"]["fit"]["watch_time"]
    assert watch["best_absolute_mse"] < watch["best_within_reach_mse"] < watch["variance"]


def test_the_source_yields_the_contract(folder, small_config):
    source = SimulatedSource(folder)
    events = pl.concat(source.events())
    assert_frame_equal(events, read(folder, "log"))
    rows = pl.concat(source.requests())
    assert len(rows) == len(read(folder, "requests"))
    assert source.split_bounds == small_config.split_bounds
    sides = {"user": source.users(), "item": source.items(), "context": rows}
    for feature in source.features:
        assert feature.name in sides[feature.side].columns
    assert source.users()["user_id"].n_unique() == small_config.users
    assert set(events["item_id"].unique()) <= set(source.items()["item_id"])
    assert all(path.is_file() for path in source.files())


def test_a_folder_without_a_whole_simulation_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="recsys data simulate"):
        SimulatedSource(tmp_path)
