"""Tables of Delta Lake and Iceberg as logs: real ones, on the disk and in an object store."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.cli import append, infer, prepare, simulate
from recsys.core.errors import ConfigError, DataError, InstallationError
from recsys.core.location import RemotePath, located
from recsys.data.contract.input_files import load_input_files
from recsys.data.contract.table_snapshots import with_snapshot
from recsys.data.stores.dataset import PreparedDataset
from tests.object_store import ObjectStore

_DAY = 86_400_000
_START = 1_714_521_600_000

#: Adds rows to a table, made where it is absent.
Write = Callable[[pl.DataFrame], None]


def _log(first_day: int, days: int) -> pl.DataFrame:
    moments = range(_START + first_day * _DAY, _START + (first_day + days) * _DAY, _DAY // 40)
    rows = list(enumerate(moments))
    return pl.DataFrame(
        {
            "user_id": [f"u{number % 7}" for number, _ in rows],
            "item_id": [number * 5 % 23 for number, _ in rows],
            "timestamp": [moment for _, moment in rows],
            "action_type": ["click" if number % 3 else "impression" for number, _ in rows],
        }
    )


@pytest.fixture
def iceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The catalog ``mine``, with the namespace ``shop``."""
    catalogs = pytest.importorskip("pyiceberg.catalog")
    config = pytest.importorskip("pyiceberg.utils.config")
    pytest.importorskip("sqlalchemy")
    (tmp_path / "warehouse").mkdir()
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path / 'catalog.db'}",
        "warehouse": f"file://{tmp_path / 'warehouse'}",
    }
    for name, value in properties.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__MINE__{name.upper()}", value)
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", config.Config())
    catalog = catalogs.load_catalog("mine")
    catalog.create_namespace("shop")
    return catalog


@pytest.fixture(params=["delta", "iceberg"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Write]:
    """The path of an empty table, and what adds rows to it."""
    if request.param == "delta":
        deltalake = pytest.importorskip("deltalake")
        path = str(tmp_path / "events")
        return path, lambda rows: deltalake.write_deltalake(path, rows.to_arrow(), mode="append")
    catalog = request.getfixturevalue("iceberg")
    made = catalog.create_table("shop.events", schema=_log(0, 1).to_arrow().schema)
    return "iceberg://mine/shop.events", lambda rows: made.append(rows.to_arrow())


def test_a_table_is_prepared_and_appended_by_its_snapshots(
    table: tuple[str, Write], tmp_path: Path
) -> None:
    path, write = table
    write(_log(0, 8))
    out = tmp_path / "mine"
    prepare.run([f"path={path}", f"out={out}"])
    (first,) = load_input_files(out)
    assert first.digest.startswith("snapshot:")
    _log(0, 8).write_parquet(tmp_path / "log.parquet")
    prepare.run([f"path={tmp_path / 'log.parquet'}", f"out={tmp_path / 'same'}"])
    counts = PreparedDataset.open(out).manifest.counts
    assert counts == PreparedDataset.open(tmp_path / "same").manifest.counts
    write(_log(8, 1))
    snapshot = first.digest.rpartition(":")[2]
    prepare.run([f"path={path}", f"out={out}", f"options.snapshot={snapshot}"])  # is there already
    append.run([f"path={path}", f"out={out}"])
    manifest = PreparedDataset.open(out).manifest
    assert (manifest.generation, manifest.counts["events"]) == (1, 360)
    assert [file.generation for file in load_input_files(out)] == [0, 1]
    earlier = ["source=log", f"path={path}", f"out={out}", f"options.snapshot={snapshot}"]
    with pytest.raises(DataError, match="does not follow from snapshot"):
        append.run(earlier)
    with pytest.raises(DataError, match="snapshot 12345 of the table cannot be read"):
        prepare.run([f"path={path}", f"out={tmp_path / 'no'}", "options.snapshot=12345"])


def test_a_description_of_a_table_is_drafted(table: tuple[str, Write], tmp_path: Path) -> None:
    path, write = table
    write(_log(0, 8))
    infer.run([f"path={path}", f"out={tmp_path / 'mine.yaml'}"])
    prepare.run([str(tmp_path / "mine.yaml"), f"out={tmp_path / 'mine'}"])
    assert PreparedDataset.open(tmp_path / "mine").manifest.counts["events"] == 320


def test_rows_that_a_table_has_deleted_are_not_read(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(tmp_path / "t", _log(0, 2).to_arrow())
    deltalake.DeltaTable(tmp_path / "t").delete("item_id = 0")
    kept = with_snapshot(tmp_path / "t").frame.collect()
    assert 0 < kept.height < _log(0, 2).height
    assert 0 not in kept["item_id"]


def test_a_table_in_an_object_store(object_store: ObjectStore, tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(tmp_path / "t", _log(0, 2).to_arrow())
    url = f"{object_store.bucket}/tables/t"
    object_store.put(tmp_path / "t", url)
    assert with_snapshot(RemotePath(url)).frame.collect().equals(_log(0, 2))


def test_tables_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyiceberg")
    with pytest.raises(DataError, match=r"iceberg://none/a\.b: the table cannot be read"):
        with_snapshot(RemotePath("iceberg://none/a.b"))
    (tmp_path / "t" / "metadata").mkdir(parents=True)
    (tmp_path / "t" / "metadata" / "1.metadata.json").touch()
    with pytest.raises(DataError, match="name the table by its catalog"):
        with_snapshot(tmp_path / "t")
    with pytest.raises(DataError, match=r"leave options\.snapshot out"):
        with_snapshot(tmp_path, 3)
    (tmp_path / "d" / "_delta_log").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(InstallationError, match="--extra tables"):
        with_snapshot(tmp_path / "d")


@pytest.mark.parametrize("kind", ["folder", "url", "iceberg"])
def test_a_simulated_log_is_written_to_a_new_table(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("deltalake")
    if kind == "iceberg":
        request.getfixturevalue("iceberg")
        place = "iceberg://mine/shop.simulated"
    elif kind == "url":
        place = f"{request.getfixturevalue('object_store').bucket}/lake/events"
    else:
        place = str(tmp_path / "lake" / "events")
    out = tmp_path / "simulated"
    words = ["simulator=demo", "simulator.users=20", f"out={out}", f"table={place}"]
    simulate.run(words)
    snapshot = with_snapshot(located(place))
    said = f"The same as a table: {place} (snapshot {snapshot.snapshot})"
    assert said in " ".join(capfd.readouterr().err.split())
    described = json.loads((out / "simulation.json").read_text())
    assert described["table"] == {"name": place, "snapshot": snapshot.snapshot}
    log = pl.read_parquet(out / "log" / "*.parquet")
    order = ["user_id", "timestamp", "item_id", "action_type"]
    read = snapshot.frame.collect().select(log.columns)
    assert read.sort(order).equals(log.sort(order))
    before = described
    with pytest.raises(ConfigError, match="is there already"):
        simulate.run([*words, "simulator.seed=9"])
    assert json.loads((out / "simulation.json").read_text()) == before
