"""Whatever the pieces of a preparation are done by, the data set is the same, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.cli.main import invoke
from recsys.core.engines import Engine, EngineConfig
from recsys.core.errors import DataError, InstallationError
from recsys.core.open_engine import open_engine
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.simulator import simulate
from tests.data.prepare.engines import (
    SMALL,
    Divided,
    WriteEventsAfterDying,
    assert_same,
    by_both,
)
from tests.data.prepare.test_prepare import HOUR, START, make_log
from tests.data.simulator.conftest import load_config


def logs(folder: Path, *frames: pl.DataFrame) -> str:
    """Files of a log, whose row groups are no chunks."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        frame.write_parquet(folder / f"{number}.parquet", row_group_size=70)
    return str(folder)


def spoilt(log: pl.DataFrame) -> pl.DataFrame:
    """With rows that are there twice, and such as cannot be used."""
    row = pl.int_range(pl.len())
    bad = log.with_columns(
        pl.when(row % 17 > 0).then("item_id").alias("item_id"),
        pl.when(row % 23 > 0).then("timestamp").otherwise(5).alias("timestamp"),
    )
    return pl.concat([bad, log.sample(30, seed=1)])


def test_a_log_and_what_is_appended_to_it(ray: Engine, tmp_path: Path) -> None:
    """With request times, which one file has, CSV beside Parquet, and tables of the log's own."""
    first, second = make_log(rows=600), make_log(rows=600)[300:]
    asked = spoilt(second).with_columns(request_time=pl.col("timestamp") - 1_000)
    path = logs(tmp_path / "log", spoilt(first), asked.sample(fraction=1, shuffle=True, seed=2))
    first[:100].write_csv(tmp_path / "log" / "9.csv")
    options = {"chunk_rows": 40, "items": {"categorical": ["surface"]}, "choose_days": 1}
    config = PrepareConfig(path=path, out=str(tmp_path / "out"), partitions=3)
    many = by_both(replace(config, options={**options, "report_days": 1}))
    make_log(rows=200, seed=1, start=START + 61 * HOUR, users=50).write_parquet(
        tmp_path / "log" / "day.parquet"
    )
    appended = AppendConfig(path=path, out=str(tmp_path / "one"), partitions=3)
    added = append(appended)
    assert append(replace(appended, out=str(many), engine=SMALL)).counts == added.counts
    assert added.counts["users"] > 0
    assert_same(tmp_path / "one", many)
    assert invoke(["data", "check", f"dataset={many}", "engine=ray"]) == 0


def test_one_user_has_most_events_and_ids_are_hashed(ray: Engine, tmp_path: Path) -> None:
    log = make_log(rows=2_000)
    hot = pl.when(pl.int_range(pl.len()) % 10 > 0).then(7).otherwise("user_id")
    path = logs(tmp_path / "log", log.with_columns(hot.alias("user_id")))
    config = PrepareConfig(path=path, out=str(tmp_path / "out"), ids="hashed", hash_buckets=20)
    by_both(replace(config, partitions=4))


def test_the_piece_of_a_killed_worker_is_done_again(
    ray: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = logs(tmp_path / "log", make_log(rows=500))
    config = PrepareConfig(path=path, out=str(tmp_path / "one"), partitions=3)
    prepare(config)
    monkeypatch.setattr("recsys.data.prepare.preparation.WriteEvents", WriteEventsAfterDying)
    prepare(replace(config, out=str(tmp_path / "many"), engine=SMALL))
    assert (tmp_path / "died").is_file()
    assert_same(tmp_path / "one", tmp_path / "many")


def test_what_a_worker_finds_wrong_is_the_same_sentence(ray: Engine, tmp_path: Path) -> None:
    bad = make_log(rows=300).with_columns(pl.lit(5, pl.Int64).alias("timestamp"))
    config = PrepareConfig(path=logs(tmp_path / "log", bad), out=str(tmp_path / "out"))
    said = []
    for engine in (EngineConfig(), SMALL):
        with pytest.raises(DataError) as refused:
            prepare(replace(config, engine=engine))
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert [one.name for one in tmp_path.iterdir()] == ["log"]


@st.composite
def events(draw: Callable[..., Any]) -> pl.DataFrame:
    """Few users, items and moments, so that there are ties; ids of numbers or text; bad rows."""
    text = draw(st.booleans())
    ids = st.sampled_from(["u", "7", "07", ""] if text else [1, 7, -3, 2**40])
    rows = st.tuples(
        st.none() | ids,
        st.none() | ids,
        st.sampled_from([START, START + 1, START + HOUR, START + 30 * HOUR, 3]),
        st.none() | ids,
        st.sampled_from(["impression", "click", "liked", "?", None]),
        st.sampled_from(["feed", "", "search", "unknown", None]),
        st.sampled_from([None, 1.5, -1.0, float("nan")]),
    )
    some = draw(st.lists(rows, min_size=1, max_size=40))
    good = [(ids_of, ids_of, START + n * HOUR, None, "impression", "feed", 1.0)
            for n in range(40) for ids_of in (["u"] if text else [1])]  # fmt: skip
    names = ("user_id", "item_id", "timestamp", "author_id", "action_type", "surface", "dwell_time")
    kind = pl.String if text else pl.Int64
    types = dict.fromkeys(("user_id", "item_id", "author_id"), kind)
    return pl.DataFrame(some + good, names, schema_overrides=types, orient="row")


@settings(max_examples=10)
@given(log=events(), chunk_rows=st.integers(3, 30), block_rows=st.integers(5, 60))
def test_pieces_make_what_the_whole_makes(
    tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame, chunk_rows: int, block_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    log.write_parquet(folder / "log.parquet", row_group_size=7)
    options = {"chunk_rows": chunk_rows}
    path = str(folder / "log.parquet")
    config = PrepareConfig(path=path, out=str(folder / "one"), partitions=3, options=options)
    prepare(config)
    with pytest.MonkeyPatch.context() as patch:
        divided = nullcontext(Divided(block_rows))
        patch.setattr("recsys.data.prepare.prepare.open_engine", lambda *_: divided)
        prepare(replace(config, out=str(folder / "many")))
    assert_same(folder / "one", folder / "many")


def test_a_node_that_would_make_something_else_is_refused(ray: Engine, tmp_path: Path) -> None:
    from recsys.core import ray_engine

    look = ray_engine._look()
    said = [
        ray_engine._result(look.remote(versions, places))
        for versions, places in (
            ({"polars": "0.1"}, []),
            ({"a-package": "1"}, []),
            ({}, [str(tmp_path), str(tmp_path / "elsewhere")]),
        )
    ]
    assert "polars" in said[0] and "this process has 0.1" in said[0]
    assert "a-package not installed" in said[1]
    assert "does not see" in said[2] and "elsewhere" in said[2]


def test_without_ray_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "recsys.core.ray_engine", raising=False)
    with pytest.raises(InstallationError, match="--extra ray"):
        open_engine(SMALL, tmp_path)


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_half_done(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    simulate(load_config("demo", "users=300"), tmp_path / "log")
    command = [sys.executable, "-m", "recsys", "data", "prepare", "data=simulated"]
    command += [f"path={tmp_path / 'log'}", f"out={tmp_path / 'many'}", "engine=ray"]
    driver = subprocess.Popen([*command, "engine.workers=2", "engine.object_store_mb=80"])
    while not list(tmp_path.glob(".many*/spill-*/piece-*")) and driver.poll() is None:
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "many").exists()
    config = PrepareConfig(source="simulated", path=str(tmp_path / "log"))
    prepare(replace(config, out=str(tmp_path / "one")))
    prepare(replace(config, out=str(tmp_path / "many"), engine=SMALL))
    assert_same(tmp_path / "one", tmp_path / "many")
