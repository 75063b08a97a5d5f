"""The ranker from a log to metrics and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.data.batches.given_rows import GivenRows
from recsys.data.contract.schema import Split
from recsys.data.prepare.open_or_prepare import open_or_prepare
from recsys.embeddings.rows import quantize_rows
from recsys.embeddings.stores import open_store
from recsys.evaluation.calibration import Calibration
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.predictions import read_predictions
from recsys.runs.metrics_log import read_metrics
from recsys.systems.choice import compose_run
from recsys.systems.evaluate import evaluate
from recsys.systems.ranker.config import RankerRun
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run, train
from tests.evaluation.baselines.planted import AUTHORS, HOUR, START, impressions, own_log

SMALL = (
    "system=ranker",
    "data=log",
    "model.net.dimension=8",
    "model.net.experts.sizes=[16,8]",
    "model.net.counted_sizes=[16]",
    "loader.max_events=12",
    "trainer.progress_bar=false",
    "loader.features.windows_hours=[24]",
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every user likes the items of two authors, and few others."""
    shown = impressions(0)
    draw = np.random.default_rng(1)
    favourite = shown["author_id"].to_numpy() % (AUTHORS // 2) == shown["user_id"].to_numpy() % 6
    likes = draw.random(len(shown)) < np.where(favourite, 0.7, 0.05)
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    own_log(likes, shown).write_parquet(path)
    return path


def settings(log: Path, run: Path, *more: str) -> list[str]:
    data = (f"data.path={log}", f"data.out={log.parent / 'prepared'}", f"run_dir={run}")
    return [*SMALL, *data, *more]


def values(run_dir: Path, metric: str) -> list[float]:
    found = read_metrics(run_dir).filter(pl.col("metric") == metric)["value"].to_list()
    assert found
    return found


@pytest.fixture(scope="module")
def run_dir(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ranker"
    train(compose_run(settings(log, folder)))
    return folder


def test_it_finds_whose_items_a_user_likes(run_dir: Path) -> None:
    assert min(values(run_dir, "val/ne/liked")) < 0.85


def test_evaluation_is_that_of_every_system_of_tasks(run_dir: Path) -> None:
    found = evaluate(EvaluateConfig(run_dir=str(run_dir), baselines=["fit_mean", "user_mean"]))
    assert found["report/ne/liked"]["value"] < 0.85


def test_scores_are_those_of_the_split(run_dir: Path) -> None:
    run = load_run(run_dir)
    system = RankerSystem()
    first = system.predict(run, Split.CHOOSE)
    assert np.isfinite(first["prediction_liked"].to_numpy()).all()
    assert first["explicit_events"].max() > 0


@pytest.mark.parametrize(
    "setting",
    [
        "model.net.interaction.kind=dcn",
        "model.net.experts.kind=ple",
        "model.net.experts.kind=shared_bottom",
    ],
)
def test_other_interactions_and_experts_train(log: Path, tmp_path: Path, setting: str) -> None:
    train(compose_run(settings(log, tmp_path / "run", setting, "trainer.max_steps=3")))
    assert np.isfinite(values(tmp_path / "run", "val/ne/liked")).all()


def test_one_process_is_as_sharded_tables(log: Path, tmp_path: Path) -> None:
    steps = "trainer.max_steps=3"
    train(compose_run(settings(log, tmp_path / "one", steps)))
    train(compose_run(settings(log, tmp_path / "sharded", steps, "strategy=torchrec")))
    one, sharded = (values(tmp_path / name, "val/loss") for name in ("one", "sharded"))
    assert one == pytest.approx(sharded, rel=1e-4)


def test_heads_that_do_not_divide_the_width_are_a_sentence(log: Path, tmp_path: Path) -> None:
    wrong = settings(log, tmp_path / "run", "model.net.recent.heads=3")
    with pytest.raises(ConfigError, match=r"model.recent.heads=3 does not divide"):
        train(compose_run(wrong))


@pytest.mark.parametrize("kind", ["projected", "gated", "unprojected", "prepended"])
def test_published_embeddings_are_read(log: Path, tmp_path: Path, kind: str) -> None:
    settings_of = settings(log, tmp_path / "run", "trainer.max_steps=3")
    dataset, _ = open_or_prepare(compose_run(settings_of).data)
    ids = dataset.vocabulary("user").table["raw"].to_list()
    rows = quantize_rows(torch.randn(len(ids), 3, 16)).numpy()
    with open_store(str(tmp_path / "store")) as store:
        store.begin(START + 5 * 24 * HOUR, {})
        store.put_many(ids, rows)
        store.commit()
    adoption = (f"model.net.adoption.kind={kind}", "model.net.adoption.vectors=2")
    stores = f"loader.user_embeddings.stores=[{tmp_path / 'store'}]"
    train(compose_run([*settings_of, *adoption, stores]))
    run = load_run(tmp_path / "run")
    system = RankerSystem()
    reader = system.data(run.config, run.dataset).reader
    moment = START + np.array([4, 6]) * 24 * HOUR
    batch = reader.given(np.array([3, 3]), moment, np.array([1, 1]), np.array([5, 5]))
    assert batch.has_embedding.tolist() == [False, True]
    run.model.eval()
    with torch.inference_mode():
        before = run.model.predict_step(batch, 0)["predictions"]
        batch.user_embedding[1] += 1
        after = run.model.predict_step(batch, 0)["predictions"]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def test_predictions_are_calibrated_on_choose(log: Path, run_dir: Path) -> None:
    run = load_run(run_dir)
    system = RankerSystem()
    kept = Calibration.read(run_dir)
    assert kept is not None
    assert (kept.method, kept.checkpoint) == ("isotonic", run.checkpoint)
    assert system.calibration(run) == kept
    # the last checkpoint has a curve of its own, made when it is asked for
    last = system.calibration(load_run(run_dir, "last"))
    assert last is not None and last.checkpoint.name == "last.ckpt"
    found = evaluate(EvaluateConfig(run_dir=str(run_dir), baselines=["fit_mean"]))
    for name in ("ece/liked", "calibrated/ece/liked", "calibrated/ne/liked"):
        assert np.isfinite(found[f"report/{name}"]["value"])
    assert "calibrated (isotonic)" in found["report/calibrated/ne/liked"]["protocol"]
    assert "logged impressions" in found["report/calibrated/ece/liked"]["protocol"]
    written = read_predictions(run_dir, Split.REPORT)
    pairs = GivenRows(
        written["user"].to_numpy().astype(np.int64)[:40],
        written["item"].to_numpy().astype(np.int64)[:40],
        written["request_time"].to_numpy()[:40],
    )
    raw = system.score(replace_calibration(run, "none"), pairs)["liked"]
    scored = system.score(run, pairs)["liked"]
    np.testing.assert_array_equal(kept.apply(raw[:, None])[:, 0], scored)


def replace_calibration(run: RankerRun, method: str) -> RankerRun:
    model = replace(run.config.model, calibration=method)
    return replace(run, config=replace(run.config, model=model))
