"""From a frame in memory to a measured run, without a file of the log and without a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.api.train import written
from recsys.core.errors import ConfigError, RecsysError
from recsys.core.overrides import split_list
from recsys.data.stores.dataset import PreparedDataset

DAY = 86_400_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Clicks of 30 users on names."""
    draw = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in draw.integers(0, 30, 900)],
            "item_id": [f"item {item}" for item in draw.integers(0, 25, 900)],
            "timestamp": 1_704_067_200_000 + draw.integers(0, 10 * DAY, 900),
            "action_type": "click",
        }
    )
    return recsys.prepare(log, tmp_path_factory.mktemp("api") / "prepared", name="clicks")


def test_a_frame_is_trained_on_and_measured(
    dataset: PreparedDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"trainer.max_steps": 3, "evaluation.metrics": ["hits@5", "mrr"], "model.scale": 9}
    run = recsys.train(dataset, "sequence", tmp_path / "run", settings)
    assert "Settings by the size of the data" in capsys.readouterr().err
    assert run.config.model.scale == 9  # type: ignore[attr-defined]
    assert run.config.data.out == str(dataset.path.resolve())
    measured = run.evaluate()
    assert measured["report/hits@5/all"]["protocol"].startswith("clicks, split report")
    assert run.metrics["report/mrr/all"] == measured["report/mrr/all"]
    assert run.recommend(["u1"], k=3)["rank"].to_list() == [1, 2, 3]


def test_what_is_not_prepared_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs path="):
        recsys.train(tmp_path / "nothing", "sequence", tmp_path / "run")
    with pytest.raises(RecsysError, match="max_epoch"):
        recsys.train(tmp_path / "nothing", "sequence", tmp_path / "run", {"trainer.max_epoch": 2})


def test_a_list_is_written_as_it_is_read() -> None:
    assert split_list(written(["a b", 2.5, None, False])[1:-1]) == ["a b", "2.5", "null", "false"]
