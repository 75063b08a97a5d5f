"""Runs that are trained into an object store: whole at every checkpoint, gone on with by URL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.cli import train
from recsys.cli.launch.tasks import World, plan_trainings
from recsys.core.errors import ConfigError, DataError
from recsys.core.location import RemotePath
from recsys.core.mirror import local_folder
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.runs.remote import local_checkpoint
from tests.object_store import KEY, SECRET, ObjectStore
from tests.systems.own_log import SETTINGS, RunOf

SYSTEM = "sequence"


@pytest.fixture
def words(run_of: RunOf) -> list[str]:
    """Settings of a run of that system on the log whose data set is there."""
    data = run_of(SYSTEM).parents[1]
    given = (f"data.path={data / 'log.parquet'}", f"data.out={data / 'prepared'}")
    more = ("trainer.progress_bar=false", "trainer.checkpoint_every_n_steps=2")
    of_fixture = (*SETTINGS[SYSTEM], "settings_by_size=false")  # as it trains
    return [f"system={SYSTEM}", "data=log", *given, *of_fixture, *more]


def _weights(run_dir: Path, name: str = "last.ckpt") -> dict[str, Any]:
    return dict(open_checkpoint(run_dir / "checkpoints" / name).weights())


def test_a_run_is_at_its_url_whenever_a_checkpoint_is_whole(
    object_store: ObjectStore,
    words: list[str],
    run_of: RunOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, opened = f"{object_store.bucket}/runs/mine", RemotePath.open

    def full(path: RemotePath, mode: str = "rb", **_: Any) -> Any:
        if mode == "wb" and "step-00000004" in path.name:
            raise DataError(f"{path} cannot be reached: the store is full.")
        return opened(path, mode)

    monkeypatch.setattr(RemotePath, "open", full)
    with pytest.raises(DataError, match="the store is full"):
        train.run([*words, f"run_dir={url}"])
    monkeypatch.setattr(RemotePath, "open", opened)
    # that of the first epoch, which is validated
    assert open_checkpoint(local_folder(url) / "checkpoints" / "last.ckpt").step == 3
    with pytest.raises(ConfigError, match=f"{url} is not empty; .* resume=true"):
        train.run([*words, f"run_dir={url}"])
    shutil.rmtree(tmp_path / "cache")  # another machine goes on
    train.run([f"run_dir={url}", "resume=true"])
    there, here = local_folder(url), run_of(SYSTEM)
    for name, weight in _weights(here).items():
        assert torch.equal(_weights(there)[name], weight), name
    assert (there / "metrics.json").read_bytes() == (here / "metrics.json").read_bytes()
    assert f"run_dir: {url}" in (there / "config.yaml").read_text()
    shown = capfd.readouterr()
    assert f"Run folder: {url}" in shown.out + shown.err
    assert SECRET not in shown.out + shown.err
    warm = [f"run_dir={tmp_path / 'warm'}", f"warm_start.checkpoint={url}/checkpoints/best.ckpt"]
    train.run([*words, *warm, "trainer.max_steps=1"])
    assert f"Warm start from {url}/checkpoints/best.ckpt" in capfd.readouterr().err


def test_of_a_run_that_checkpoint_is_copied_that_is_begun_from(
    object_store: ObjectStore, run_of: RunOf, tmp_path: Path
) -> None:
    """Also where another tool has copied the run, or the checkpoint alone."""
    checkpoints = run_of(SYSTEM) / "checkpoints"
    best = (checkpoints / "best.ckpt").resolve()
    object_store.put(run_of(SYSTEM), f"{object_store.bucket}/run")
    object_store.put(best, f"{object_store.bucket}/models/mine.ckpt")
    for url, names in (
        ("run/checkpoints/best.ckpt", {"dataset.json", "checkpoints"}),
        ("models/mine.ckpt", {"mine.ckpt"}),
    ):
        copy = local_checkpoint(f"{object_store.bucket}/{url}")
        assert copy.read_bytes() == best.read_bytes()
        root = copy.parents[1] if "checkpoints" in names else copy.parent
        assert {path.name for path in root.iterdir() if path.name[0] != "."} == names


def test_what_the_store_refuses_is_said_before_the_training(
    refusing_store: None, words: list[str]
) -> None:
    with pytest.raises(DataError, match=r"access is refused .* credentials") as caught:
        train.run([*words, "run_dir=s3://secret/mine"])
    assert KEY not in str(caught.value) and SECRET not in str(caught.value)


def test_jobs_of_a_cluster_write_to_a_folder_that_all_see(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="a path on a file system that every node sees"):
        plan_trainings([*words, "run_dir=s3://runs/mine"], World(), "now")
