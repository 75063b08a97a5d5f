"""Prepared data sets, runs and artifacts at URLs, by the commands that make and read them."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

import recsys
from recsys.cli import append, evaluate, export, prepare, trust
from recsys.core.errors import ArtifactError
from recsys.core.folder_list import LIST_FILE
from recsys.data.stores.check import check_dataset
from recsys.data.stores.dataset import PreparedDataset
from tests.object_store import SECRET, ObjectStore
from tests.systems.own_log import DAY, START, RunOf, small_log


def test_a_data_set_at_a_url_is_prepared_appended_to_and_opened(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    url, days = f"{object_store.bucket}/prepared/mine", tmp_path / "days"
    days.mkdir()
    log = small_log()
    known = log["timestamp"] < START + 25 * DAY
    log.filter(known).write_parquet(days / "1.parquet")
    prepare.run([f"path={days}", f"out={url}", "name=mine"])
    first = PreparedDataset.open(url)
    assert {"dataset.json", LIST_FILE} < set(object_store.keys(url))
    log.filter(~known).write_parquet(days / "2.parquet")
    append.run([f"path={days}", f"out={url}"])
    second = recsys.open_dataset(url)
    assert (first.manifest.generation, second.manifest.generation) == (0, 1)
    assert second.manifest.counts["events"] == log.height
    assert PreparedDataset.open(first.path).manifest == first.manifest
    before = {path.name for path in second.path.iterdir()}
    assert before >= {"timelines", "vocabulary"} and not before & {"tail", "sequences", "rejected"}
    assert [path.name for path in (second.path / "requests").iterdir()] == ["requests.json"]
    check_dataset(second, anew=True)
    rows = pickle.loads(pickle.dumps(second)).requests(None).num_rows
    assert rows == len(second.requests(None).item) > 0
    assert len(list((second.path / "requests").iterdir())) > 4
    assert not (second.path / "tail").exists()
    check_dataset(second, anew=True)
    assert len(first.timelines.history(1, START + 30 * DAY, "explicit", 5)["timestamp"]) == 5


def test_a_run_and_its_artifact_at_urls(
    object_store: ObjectStore,
    run_of: RunOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = run_of("sequence")
    there = f"{object_store.bucket}/runs/mine"
    shutil.copytree(here, tmp_path / "run", ignore=shutil.ignore_patterns(".*", "artifact"))
    object_store.put(tmp_path / "run", there)
    evaluate.run([f"run_dir={there}"])
    assert recsys.open_run(there).folder != here
    artifact = f"{object_store.bucket}/artifacts/mine"
    export.run([f"run_dir={there}", f"out={artifact}", "measure=false"])
    assert recsys.open_artifact(artifact).manifest.model == "sequence"
    monkeypatch.setenv("RECSYS_TRUSTED_ARTIFACTS", str(tmp_path / "trusted"))
    with pytest.raises(ArtifactError, match="is not among the artifacts"):
        recsys.open_artifact(artifact)
    trust.run([f"artifact={artifact}"])
    recsys.open_artifact(artifact)
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err
