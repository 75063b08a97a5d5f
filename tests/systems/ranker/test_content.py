"""What a user did with items whose content is like a candidate's, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.artifacts.open import open_artifact
from recsys.cli.main import invoke
from tests.evaluation.baselines.planted import ITEMS
from tests.systems.own_log import SETTINGS
from tests.systems.ranker.test_system import log  # noqa: F401


@pytest.mark.parametrize("system", ["ranker", "hsnn"])
def test_a_run_is_trained_scores_and_is_exported(
    log: Path,  # noqa: F811
    tmp_path: Path,
    system: str,
) -> None:
    items = np.arange(1, ITEMS)  # the item 0 has no embedding
    vectors = np.random.default_rng(0).standard_normal((len(items), 6))
    np.savez(tmp_path / "items.npz", item_id=items, embedding=vectors)
    run_dir, scores = tmp_path / "run", tmp_path / "scores.parquet"
    data = ("data=log", f"data.path={log}", f"data.out={log.parent / 'prepared'}")
    content = [
        f"loader.features.content.path={tmp_path / 'items.npz'}",
        "loader.features.content.clusters=5",
    ]
    of_run = [*SETTINGS[system], "trainer.max_steps=2", f"run_dir={run_dir}", *content]
    assert invoke(["train", f"system={system}", *data, *of_run]) == 0
    pairs = tmp_path / "pairs.parquet"
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": [0, 5, 5]}).write_parquet(pairs)
    assert invoke(["score", f"run_dir={run_dir}", f"pairs={pairs}", f"out={scores}"]) == 0
    found = pl.read_parquet(scores).select(pl.col(pl.Float64, pl.Float32))
    assert found.width and np.isfinite(found.to_numpy()).all()
    assert invoke(["export", f"run_dir={run_dir}"]) == 0
    manifest = open_artifact(run_dir / "artifact").manifest
    assert "user and content: liked, 24 h" in manifest.features["counted"]
    assert manifest.counting["content"]["clusters"] == 5
