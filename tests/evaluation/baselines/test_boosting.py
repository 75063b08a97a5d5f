"""LightGBM on counts learns what was known, and nothing of a row's own outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.baselines.config import BoostingConfig
from recsys.evaluation.comparisons import measure_scores
from tests.evaluation.baselines.planted import AUTHORS, USERS, impressions, own_log, prepared

pytest.importorskip("lightgbm")
boosting = pytest.importorskip("recsys.evaluation.baselines.boosting")

SMALL = BoostingConfig(trees=80)


def ne(dataset: PreparedDataset, gap_ms: int = 0, config: BoostingConfig = SMALL) -> float:
    predictions = boosting.boosted_counts(dataset, Split.REPORT, gap_ms, config)
    labels = np.asarray(dataset.requests(Split.REPORT).labels, np.float64)
    return measure_scores(predictions, labels, dataset.manifest.tasks)["ne/liked"]


def test_an_outcome_that_only_the_row_itself_knows_is_not_learnt(tmp_path: Path) -> None:
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    assert 0.995 < ne(prepared(own_log(likes, shown), tmp_path / "prepared")) < 1.01


def test_tastes_are_learnt(tmp_path: Path) -> None:
    shown = impressions(0)
    draw = np.random.default_rng(1)
    taste = draw.random((USERS, AUTHORS)) < 0.3
    fond = taste[shown["user_id"].to_numpy(), shown["author_id"].to_numpy()]
    likes = draw.random(len(shown)) < np.where(fond, 0.9, 0.05)
    dataset = prepared(own_log(likes, shown), tmp_path / "prepared")
    assert ne(dataset) < 0.7
    some = BoostingConfig(trees=20, rows=2000)
    first, second = (boosting.boosted_counts(dataset, Split.REPORT, 0, some) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (
        measure_scores(
            first, np.asarray(dataset.requests(Split.REPORT).labels, float), dataset.manifest.tasks
        )["ne/liked"]
        < 0.9
    )


def test_a_task_without_anything_to_learn_is_its_mean(tmp_path: Path) -> None:
    shown = impressions(0).head(3000)
    likes = np.zeros(len(shown), bool)
    likes[-1] = True  # in the report split alone
    dataset = prepared(own_log(likes, shown), tmp_path / "prepared")
    assert (boosting.boosted_counts(dataset, Split.REPORT, 0, SMALL) == 0).all()
