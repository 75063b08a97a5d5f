"""Runs over days that are appended: what they read, start from, go on with and are measured on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.artifacts.open import open_artifact
from recsys.cli.main import invoke
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.batches.given_rows import GivenRows
from recsys.data.contract.manifest import GROWN_FROM, DatasetManifest
from recsys.data.contract.schema import MILLISECONDS_PER_DAY as DAY
from recsys.data.contract.schema import Split
from recsys.data.stores.counters.store import CounterStore
from recsys.evaluation.calibration import Calibration
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.runs.warm_start_callback import refuse_later_days
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run

START = 19_800 * DAY  # 2024-03-18
ITEMS = 30
SMALL = ["trainer.max_steps=4", "trainer.progress_bar=false"]
SYSTEMS = {
    "dv365": ["encoder=funnel", "slices=demo", "model.dimension=8", "loader.batch_requests=32"],
    "sequence": ["model.width=8", "model.heads=1"],
    "nxtpost": ["posts.path=posts.npz", "model.tower.width=8", "model.tower.heads=1"],
    "two_tower": [
        "model.items.width=8",
        "model.items.output_width=8",
        "model.users.width=8",
        "model.tasks=[{action: click}]",
    ],
    "wide_and_deep": ["model.width=8", "model.hidden_sizes=[8]", "model.cross_buckets=64"],
    "ranker": ["model.net.dimension=8", "loader.max_events=8", "loader.batch_requests=32"],
}


def write_day(day: int) -> None:
    """A day's log of ten users and six items that are new with it, beside those of before."""
    generator = np.random.default_rng(day)
    rows = 240
    action = generator.choice(["impression", "click"], rows, p=[0.6, 0.4])
    item = generator.integers(0, min(6 * (day + 1), ITEMS), rows)
    pl.DataFrame(
        {
            "user_id": generator.integers(0, 10 + day, rows),
            "item_id": item,
            "author_id": item % 5,
            "timestamp": START + day * DAY + np.sort(generator.integers(0, DAY, rows)),
            "action_type": action,
            "dwell_time": np.where(action == "impression", generator.exponential(5, rows), np.nan),
        }
    ).write_parquet(f"log/{day}.parquet")


def train(system: str, run_dir: str, *more: str, path: str = "log") -> int:
    data = ["data=log", f"data.path={path}", "data.out=mine", "data.partitions=2"]
    days = ["data.options.choose_days=1", "data.options.report_days=1"]
    settings = [*data, *days, *SYSTEMS[system], *SMALL, f"run_dir={run_dir}", *more]
    return invoke(["train", f"system={system}", *settings])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all systems on four days, and the data set with a fifth appended, ``grown``."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("log").mkdir()
        vectors = np.random.default_rng(0).normal(size=(ITEMS, 8)).astype(np.float32)
        np.savez("posts.npz", item_id=np.arange(ITEMS), embedding=vectors)
        for day in range(4):
            write_day(day)
        for system in SYSTEMS:
            assert train(system, f"runs/{system}") == 0
        shutil.copytree("mine", "before", copy_function=shutil.copy)
        Path("log").rename("days")
        Path("log").mkdir()
        write_day(4)
        assert invoke(["data", "append", "out=mine", "path=log/4.parquet"]) == 0
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world, the current folder."""
    shutil.copytree(world, tmp_path / "world", symlinks=True)
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_starts_from_the_last_one_on_the_grown_data_set(
    here: Path, system: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"warm_start.checkpoint=runs/{system}/checkpoints/best.ckpt"
    capsys.readouterr()
    assert train(system, "runs/next", checkpoint, path="log/4.parquet") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "Data set log, generation 1: fit from 2024-03-18" in said
    assert "until 2024-03-21, choose until 2024-03-22, report until 2024-03-22 23:5" in said
    assert "0 ignored" in said and "another data set" not in said
    if system != "nxtpost":  # whose items are content
        assert "0 grown" not in said
    trained_on = DatasetManifest.load(Path("runs/next"))
    assert trained_on.generation == 1
    [value] = {
        one["protocol"].partition(", split")[0]
        for one in read_metrics_file(Path("runs/next")).values()
    }
    assert value.startswith("log, generation 1 (fit from 2024-03-18")


def test_a_ranker_counts_and_is_calibrated_anew_day_by_day(here: Path) -> None:
    checkpoint = "warm_start.checkpoint=runs/ranker/checkpoints/best.ckpt"
    before = CounterStore.open(load_run("runs/ranker").dataset).path
    assert train("ranker", "runs/next", checkpoint, path="log/4.parquet") == 0
    assert {one.name for one in Path("mine/counters").iterdir()} == {before.name}
    old, new = Calibration.read(Path("runs/ranker")), Calibration.read(Path("runs/next"))
    assert old is not None and new is not None
    assert old.data != new.data == DatasetManifest.load(Path("mine")).fingerprint
    # an item that became known between the two, and one that nobody knows
    name = "fit_vocabulary_item"
    first = load_run("runs/ranker").manifest.counts[name]
    run = load_run("runs/next")
    assert first < run.manifest.counts[name]
    pairs = GivenRows(np.array([3, 3]), np.array([first, 0]), np.full(2, START + 5 * DAY))
    assert np.isfinite(RankerSystem().score(run, pairs)["click"]).all()
    assert invoke(["export", "run_dir=runs/next"]) == 0
    assert (
        open_artifact("runs/next/artifact").manifest.fit_vocabulary["item"]
        == run.manifest.counts[name]
    )


def test_a_training_finds_the_data_set_by_its_old_files_its_new_ones_or_all(here: Path) -> None:
    made = (here / "mine" / "dataset.json").stat().st_mtime_ns
    assert train("sequence", "runs/of_old", path="days") == 0
    Path("log/4.parquet").rename("days/4.parquet")
    assert train("sequence", "runs/of_all", path="days") == 0
    assert (here / "mine" / "dataset.json").stat().st_mtime_ns == made
    versions = {DatasetManifest.load(Path(f"runs/of_{one}")).fingerprint for one in ("old", "all")}
    assert versions == {DatasetManifest.load(here / "mine").fingerprint}


def test_what_is_not_the_same_is_named_key_by_key(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sequence", "runs/new", "data.options.attribution_hours=1", path="days") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "data.options.attribution_hours is 1.0, it was 24.0." in said
    assert "give data.overwrite=true to replace it, or another data.out=" in said
    assert train("sequence", "runs/new", path="days/1.parquet") == 2
    assert "was prepared from more files than these" in " ".join(capsys.readouterr().err.split())
    write_day(5)
    assert train("sequence", "runs/new", path="log") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "5.parquet it does not know. Add new days by `recsys data append`" in said


@pytest.mark.parametrize("system", ["dv365", "sequence"])
def test_an_old_run_keeps_to_its_days_and_is_measured_on_later_ones(
    here: Path, system: str
) -> None:
    run = load_run(f"runs/{system}")
    old, now = run.manifest, run.dataset.newest
    assert run.dataset.manifest.split_bounds == old.split_bounds != now.split_bounds
    name = "fit_vocabulary_item"
    assert run.dataset.manifest.counts[name] == old.counts[name] < now.counts[name]
    assert invoke(["evaluate", f"run_dir=runs/{system}", "bootstrap.resamples=10"]) == 0
    metrics = read_metrics_file(Path("runs") / system)
    name = "report/ne/mean" if system == "dv365" else "report/mrr/all"
    protocol = metrics[name]["protocol"]
    assert "log, generation 1 (fit from 2024-03-18" in protocol
    assert "trained on generation 0 until 2024-03-20, split report" in protocol
    frame = pl.read_parquet(f"runs/{system}/predictions/report.parquet")
    assert frame["request_time"].min() >= now.split_bounds[Split.REPORT][0]


def test_two_generations_are_compared_on_the_rows_of_now(here: Path) -> None:
    assert train("dv365", "runs/next", path="days") == 0
    assert invoke(["evaluate", "run_dir=runs/dv365", "bootstrap.resamples=10"]) == 0
    against = ["against=runs/dv365", "bootstrap.resamples=10"]
    assert invoke(["evaluate", "run_dir=runs/next", *against]) == 0
    assert "report/relative_ne_delta/click" in read_metrics_file(Path("runs/next"))


def test_a_run_that_goes_on_keeps_to_its_days(here: Path) -> None:
    before = DatasetManifest.load(Path("runs/dv365"))
    assert invoke(["train", "run_dir=runs/dv365", "resume=true", "trainer.max_steps=6"]) == 0
    assert DatasetManifest.load(Path("runs/dv365")) == before
    run = load_run("runs/dv365", "last")
    assert run.checkpoint.step == 6
    times = run.dataset.requests(Split.FIT).request_time
    assert times.max() < before.split_bounds[Split.FIT][1]


def planted(folder: Path, change: Callable[[DatasetManifest], DatasetManifest]) -> None:
    """A manifest that says something else."""
    change(DatasetManifest.load(folder)).save(folder)


def later(manifest: DatasetManifest) -> DatasetManifest:
    """As if it had been trained on days that are reported now."""
    bounds = {split: (a + 2 * DAY, b + 2 * DAY) for split, (a, b) in manifest.split_bounds.items()}
    return replace(manifest, split_bounds=bounds)


def test_a_run_is_not_measured_on_rows_that_it_has_seen(here: Path) -> None:
    planted(Path("runs/sequence"), later)
    with pytest.raises(ArtifactError, match="has seen rows until 2024-03-23, but the report split"):
        load_run("runs/sequence", measured=Split.REPORT)


def test_weights_that_have_seen_later_days_start_no_run(here: Path) -> None:
    old, new = DatasetManifest.load(Path("runs/sequence")), DatasetManifest.load(Path("mine"))
    checkpoint = Path("runs/sequence/checkpoints/best.ckpt")
    refuse_later_days(checkpoint, old)
    refuse_later_days(checkpoint, new)
    planted(Path("runs/sequence"), later)
    with pytest.raises(ConfigError, match="was trained on rows until 2024-03-22, but this run is"):
        refuse_later_days(checkpoint, new)
    other = {"fingerprint": "x", "preparation": {GROWN_FROM: []}}
    planted(Path("runs/sequence"), lambda one: replace(one, **other))
    refuse_later_days(checkpoint, new)  # of another log: its days say nothing of these
