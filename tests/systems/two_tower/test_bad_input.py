"""Data that a two-tower model cannot make much of: a sentence each, or what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.core.errors import ConfigError, DataError
from recsys.systems.choice import compose_run
from recsys.systems.runs import train
from tests.systems.own_log import LATE, SETTINGS, small_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of text ids without any feature of an item or a user, and its prepared data set."""
    folder = tmp_path_factory.mktemp("bad")
    small_log().write_parquet(folder / "log.parquet")
    return folder


def trained(folder: Path, run: Path, *more: str, path: Path | None = None) -> None:
    """Train on the log, or on another one."""
    out = folder / "prepared" if path is None else path.with_suffix("")
    data = (f"data.path={path or folder / 'log.parquet'}", f"data.out={out}", f"run_dir={run}")
    settings = ["data=log", "trainer.progress_bar=false", *SETTINGS["two_tower"], *data, *more]
    train(compose_run(["system=two_tower", *settings]))


def test_a_task_without_engagements_is_named_and_teaches_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = "model.tasks=[{action: click}, {action: save, weight: 3}]"
    trained(folder, tmp_path / "run", tasks)
    said = " ".join(capsys.readouterr().err.split())
    assert "Of the fit period nothing is learned of save: no engagement of it is one." in said
    run = recsys.open_run(tmp_path / "run")
    assert np.isfinite(run.score("u1", ["i1", "i2"])["score"].to_numpy()).all()
    with pytest.raises(DataError, match=r"no engagement of the fit period of \w+ is one of save"):
        trained(folder, tmp_path / "none", "model.tasks=[{action: save}]")


def test_an_item_without_features_or_an_id_that_was_learned_is_not_scored_nor_recommended(
    folder: Path, tmp_path: Path
) -> None:
    trained(folder, tmp_path / "run")
    run = recsys.open_run(tmp_path / "run")
    scored = run.score("u1", ["i1", LATE, "never"])
    assert scored["score"].is_null().to_list() == [False, True, True]
    assert LATE not in run.recommend(["u1", "nobody"], k=70)["item_id"].to_list()
    # of users without history and features nothing is known: they are all the same
    strangers = run.user_embeddings(["nobody", "u9999"])
    np.testing.assert_array_equal(strangers[0], strangers[1])
    with pytest.raises(ConfigError, match="nothing a post tower could encode"):
        trained(folder, tmp_path / "ids", "model.items.post_id=false")


def test_one_user_is_nothing_to_learn_from(tmp_path: Path) -> None:
    path = tmp_path / "one.parquet"
    small_log().with_columns(user_id=pl.lit("u1")).write_parquet(path)
    with pytest.raises(DataError, match="and 1 users with two or more, where it takes two users"):
        trained(tmp_path, tmp_path / "run", "sequences.repeats=true", path=path)
