"""Evaluation reads the report split, measures every row and compares on the same rows."""

from __future__ import annotations

import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.cli.train import best_line
from recsys.core.composition import compose, save
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.evaluation.baselines import boosting
from recsys.evaluation.baselines.config import TASK_BASELINES, TASK_MEANS, BoostingConfig
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import read_metrics_file
from recsys.evaluation.predictions import predicted_by, predictions_path, read_predictions
from recsys.reports.task_baselines import print_baselines
from recsys.runs.checkpoints import BEST, CHECKPOINTS, LAST
from recsys.runs.files import CONFIG_FILE
from recsys.systems.dv365.report import (
    Exported,
    places_of,
    read_material,
    report_page,
)
from recsys.systems.dv365.system import DV365RunConfig
from recsys.systems.evaluate import evaluate
from recsys.systems.runs import checkpoint_of, load_run, train
from tests.small_runs import TINY_RUN
from tests.systems.evaluated import BOOTSTRAP, asked


def test_every_row_of_the_report_split_is_predicted_once(runs: tuple[Path, Path]) -> None:
    run = load_run(runs[0])
    store = run.dataset.requests(Split.REPORT)
    frame = read_predictions(runs[0], Split.REPORT)
    assert frame["row_id"].to_list() == list(range(store.num_rows))
    assert frame["item"].to_list() == store.item.tolist()
    users = np.repeat(store.user, np.diff(store.offsets))
    assert frame["user"].to_list() == users.tolist()
    np.testing.assert_array_equal(frame["label_liked"].to_numpy(), store.labels[:, 6])


def test_metrics_are_those_of_the_predictions(runs: tuple[Path, Path]) -> None:
    metrics = read_metrics_file(runs[0])
    frame = read_predictions(runs[0], Split.REPORT).filter(pl.col("label_liked").is_not_nan())
    labels = frame["label_liked"].to_numpy().astype(float)
    predictions = frame["prediction_liked"].to_numpy()
    loss = -np.mean(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions))
    rate = labels.mean()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert metrics["report/ne/liked"]["value"] == pytest.approx(loss / entropy)
    assert metrics["report/calibration/liked"]["value"] == pytest.approx(predictions.mean() / rate)
    protocol = metrics["report/ne/liked"]["protocol"]
    assert f"split report: {len(frame)} rows" in protocol
    assert "best.ckpt of step" in protocol


def test_a_comparison_is_that_of_the_two_entropies(runs: tuple[Path, Path]) -> None:
    metrics, control = (read_metrics_file(folder) for folder in runs)
    ne, other = (found["report/ne/skip"]["value"] for found in (metrics, control))
    best = metrics["report/best_within_reach/ne/skip"]["value"]
    delta = metrics["report/relative_ne_delta/skip"]
    assert delta["value"] == pytest.approx(100 * (ne - other) / other)
    assert delta["low"] <= delta["high"]
    gain = metrics["report/gain_captured/skip"]["value"]
    assert gain == pytest.approx((other - ne) / (other - best))
    assert f"against {runs[1]}" in delta["protocol"]


def test_some_tasks_are_their_columns_in_the_order_of_the_data_set(
    runs: tuple[Path, Path],
) -> None:
    everything = load_run(runs[0]).dataset
    some = everything.of_tasks(["watch_time", "skip"])
    names = [task.name for task in everything.manifest.tasks]
    columns = [names.index("skip"), names.index("watch_time")]
    for dataset in (some, pickle.loads(pickle.dumps(some)), everything.as_known(some.manifest)):
        assert [task.name for task in dataset.manifest.tasks] == ["skip", "watch_time"]
        for split in ("fit", None):
            found, whole = (one.requests(split) for one in (dataset, everything))
            found = pickle.loads(pickle.dumps(found))
            np.testing.assert_array_equal(found.labels, whole.labels[:, columns])
            truth = whole.best_within_reach[:, columns]
            np.testing.assert_array_equal(found.best_within_reach, truth)
    assert everything.of_tasks([]) is everything
    with pytest.raises(ConfigError, match=r"has no task like; its request rows have labels of "):
        everything.of_tasks(["skip", "like"])


@pytest.fixture(scope="module")
def run_of_two_tasks(runs: tuple[Path, Path], data_overrides: tuple[str, ...]) -> Path:
    """A run of two of the ten tasks, inside a siamese network without features."""
    settings = [
        "model.tasks=[watch_time,skip]",
        "model.backbone.kind=siamese",
        "model.backbone.features=none",
        f"run_dir={runs[0].parent / 'two'}",
    ]
    return train(compose("train", DV365RunConfig, [*TINY_RUN, *data_overrides, *settings]))


def test_a_run_of_some_tasks_is_measured_on_these(
    runs: tuple[Path, Path], run_of_two_tasks: Path
) -> None:
    folder = run_of_two_tasks
    boosted = BoostingConfig(trees=3, rows=500)
    evaluate(EvaluateConfig(str(folder), str(runs[1]), bootstrap=BOOTSTRAP, boosting=boosted))
    metrics, frame = read_metrics_file(folder), read_predictions(folder, Split.REPORT)
    assert [n for n in frame.columns if n.startswith("prediction_")] == [
        "prediction_skip",
        "prediction_watch_time",
    ]
    whole = read_predictions(runs[0], Split.REPORT)
    for task in ("skip", "watch_time"):
        np.testing.assert_array_equal(frame[f"label_{task}"], whole[f"label_{task}"])
    assert metrics["report/ne/mean"]["value"] == metrics["report/ne/skip"]["value"]
    theirs = read_metrics_file(runs[1])["report/ne/skip"]["value"]
    change = 100 * (metrics["report/ne/skip"]["value"] / theirs - 1)
    assert metrics["report/relative_ne_delta/mean"]["value"] == pytest.approx(change)
    for name in TASK_BASELINES:
        assert f"report/{name}/mse/watch_time" in metrics
    assert not any(name.endswith("/liked") for name in metrics)
    assert report_page(read_material(folder, runs[1])).title == "demo"


def test_a_run_of_all_tasks_is_not_measured_against_one_of_some(
    runs: tuple[Path, Path], run_of_two_tasks: Path
) -> None:
    with pytest.raises(ArtifactError, match="two predicts skip, watch_time, and not video_compl"):
        evaluate(asked(str(runs[0]), against=str(run_of_two_tasks), bootstrap=BOOTSTRAP))


def test_an_unknown_task_is_a_sentence_before_a_run_begins(run_config: DV365RunConfig) -> None:
    config = replace(run_config, model=replace(run_config.model, tasks=["likes"]))
    with pytest.raises(ConfigError, match="has no task likes; its request rows have labels of vi"):
        train(config)
    assert not (Path(str(config.run_dir)) / CONFIG_FILE).exists()


def test_both_runs_are_compared_at_the_checkpoint_asked_for(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run, control = tmp_path / "run", tmp_path / "control"
    for source, copy in zip(runs, (run, control), strict=True):
        shutil.copytree(source, copy)
        # states that differ, whichever step was the best
        shutil.copy(copy / CHECKPOINTS / LAST, copy / CHECKPOINTS / BEST)
        content = torch.load(copy / CHECKPOINTS / BEST, weights_only=True)
        content["global_step"] = 5
        for tensor in content["state_dict"].values():
            if tensor.is_floating_point():
                tensor.mul_(0.5)
        torch.save(content, copy / CHECKPOINTS / BEST)
    evaluate(asked(str(run), against=str(control), bootstrap=BOOTSTRAP))
    assert predicted_by(control, Split.REPORT) == checkpoint_of(control, "best")
    made = predictions_path(control, Split.REPORT).stat().st_mtime_ns
    best = read_predictions(control, Split.REPORT)
    protocol = read_metrics_file(run)["report/relative_ne_delta/skip"]["protocol"]
    assert "checkpoint best.ckpt of step 5 (chosen by: lowest val/ne/mean" in protocol
    assert f"against {control}, same rows, checkpoint best.ckpt of step 5 (chosen" in protocol

    by_path = str(run / CHECKPOINTS / LAST)
    evaluate(asked(str(run), str(control), checkpoint=by_path, bootstrap=BOOTSTRAP))
    assert predictions_path(control, Split.REPORT).stat().st_mtime_ns == made

    evaluate(asked(str(run), str(control), checkpoint="last", bootstrap=BOOTSTRAP))
    assert predicted_by(control, Split.REPORT) == checkpoint_of(control, "last")
    last = read_predictions(control, Split.REPORT)
    assert not np.array_equal(last["prediction_skip"], best["prediction_skip"])
    delta = read_metrics_file(run)["report/relative_ne_delta/skip"]
    assert f"against {control}, same rows, checkpoint last.ckpt of step 12 (" in delta["protocol"]
    ne, other = (read_metrics_file(one)["report/ne/skip"]["value"] for one in (run, control))
    assert delta["value"] == pytest.approx(100 * (ne - other) / other)


def test_every_number_of_the_model_has_an_interval(runs: tuple[Path, Path]) -> None:
    metrics = read_metrics_file(runs[0])
    for name in ("ne/liked", "ne/mean", "mse/watch_time", "relative_ne_delta/mean"):
        found = metrics[f"report/{name}"]
        assert found["low"] < found["value"] < found["high"]
        assert "50 bootstrap resamples of users" in found["protocol"]


def test_baselines_are_measured_on_the_same_rows(runs: tuple[Path, Path]) -> None:
    metrics = read_metrics_file(runs[0])
    store = load_run(runs[0]).dataset
    fit = store.requests(Split.FIT).labels[:, 6]
    rate = fit[~np.isnan(fit)].mean(dtype=np.float64)
    labels = np.asarray(store.requests(Split.REPORT).labels[:, 6], np.float64)
    found = labels[~np.isnan(labels)].mean()
    loss = -found * np.log(rate) - (1 - found) * np.log(1 - rate)
    entropy = -found * np.log(found) - (1 - found) * np.log(1 - found)
    assert metrics["report/fit_mean/ne/liked"]["value"] == pytest.approx(loss / entropy)
    for name in TASK_MEANS:
        change = metrics[f"report/{name}/relative_ne_delta/liked"]
        ours, theirs = (metrics[f"report/{one}ne/liked"]["value"] for one in ("", f"{name}/"))
        assert change["value"] == pytest.approx(100 * (ours - theirs) / theirs)
        assert change["low"] < change["high"]
        assert f"{len(labels)} rows" in change["protocol"]
        assert "same rows" in change["protocol"]
    protocol = metrics["report/user_mean/ne/mean"]["protocol"]
    assert "checkpoint none (chosen by: mean of the fit rows of the same user" in protocol
    # the other run had none before: it is measured on the way, without what is trained
    other = read_metrics_file(runs[1])
    assert "report/user_mean/ne/mean" in other and "report/boosted_counts/ne/mean" not in other


def test_a_line_says_whether_the_model_beats_a_baseline(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluateConfig(str(runs[0]))
    print_baselines(read_metrics_file(runs[0]), config)
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("The model ")]
    for name in TASK_MEANS:
        [line] = [one for one in said if f" {TASK_BASELINES[name]}: mean NE " in one]
        assert re.search(r"mean NE [+-]\d+\.\d\d % \[", line)
    page = report_page(read_material(runs[0], None))
    assert page.headline and page.headline[0] in said
    tiles = [tile["name"] for tile in page.tiles]
    assert any(name.startswith("against ") for name in tiles)
    assert any(section.title == "Beside cheap baselines" for section in page.sections)


def test_lightgbm_is_one_of_the_baselines_or_said_to_be_missing(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if boosting.is_installed():
        change = read_metrics_file(runs[0])["report/boosted_counts/relative_ne_delta/mean"]
        assert "LightGBM on counts known before each request less the gap" in change["protocol"]
        assert "2,000 of" in change["protocol"]
    monkeypatch.setitem(sys.modules, "lightgbm", None)  # as where it is not installed
    metrics = evaluate(EvaluateConfig(str(runs[1]), split="choose", bootstrap=BOOTSTRAP))
    assert "val/user_topic_mean/ne/mean" in metrics
    assert not any("boosted_counts" in name for name in metrics)
    said = capsys.readouterr().err
    assert "LightGBM on counts is left out, for lightgbm is not installed: `python -m rec" in said


def test_seen_and_unseen_items_are_apart(runs: tuple[Path, Path]) -> None:
    metrics = read_metrics_file(runs[0])
    fit_items = load_run(runs[0]).manifest.counts["fit_vocabulary_item"]
    frame = read_predictions(runs[0], Split.REPORT)
    unseen = frame.filter((pl.col("item") >= fit_items) | (pl.col("item") == 0))
    assert 0 < len(unseen) < len(frame)
    assert f"{len(unseen)} rows" in metrics["report/unseen_items/ne/skip"]["protocol"]


def test_evaluating_keeps_the_training_metrics(runs: tuple[Path, Path]) -> None:
    assert "split choose" in read_metrics_file(runs[0])["val/ne/mean"]["protocol"]


def test_the_fit_split_is_not_evaluated(runs: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="split is 'fit', it must be one of choose, report"):
        evaluate(asked(str(runs[0]), split="fit"))
    with pytest.raises(ConfigError, match="split is 'today'"):
        evaluate(asked(str(runs[0]), split="today"))


def test_runs_on_other_data_are_not_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    replace(DatasetManifest.load(other), fingerprint="another").save(other)
    with pytest.raises(ArtifactError, match="was trained on another data set"):
        evaluate(asked(str(runs[0]), against=str(other)))
    with pytest.raises(ArtifactError, match="fingerprint another"):
        load_run(other)
    with pytest.raises(ArtifactError, match="nowhere is not a run folder"):
        evaluate(asked(str(runs[0]), against=str(tmp_path / "nowhere")))


def test_damaged_checkpoints_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    best = copy / CHECKPOINTS / BEST
    best.write_bytes(best.read_bytes()[: best.stat().st_size // 2])
    with pytest.raises(ArtifactError, match="is damaged"):
        load_run(copy)
    best.unlink()
    with pytest.raises(ArtifactError, match="is not there"):
        load_run(copy)
    assert load_run(copy, "last").checkpoint.step == 12
    with pytest.raises(ArtifactError, match="does not fit the model"):
        load_run(copy, str(runs[1] / CHECKPOINTS / BEST))


def test_a_run_whose_data_set_was_moved_is_told_where_it_lies(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    config = load_run(run).config
    lies_at = config.data.out
    save(replace(config, data=replace(config.data, out=str(tmp_path / "gone"))), run / CONFIG_FILE)
    with pytest.raises(ArtifactError, match=r"gone, which is not there; .* dataset=<its folder>"):
        evaluate(asked(str(run)))
    control = tmp_path / "control"
    shutil.copytree(run, control)
    shutil.rmtree(control / "predictions")
    moved = asked(str(run), str(control), dataset=lies_at, bootstrap=BOOTSTRAP)
    assert evaluate(moved)["report/relative_ne_delta/mean"]["value"] == 0
    places = places_of(read_material(run, control, lies_at), Exported.of(run))
    assert places["prepared data set"].startswith(lies_at)


def test_training_ends_with_the_best_of_the_monitored_metric(runs: tuple[Path, Path]) -> None:
    best = load_run(runs[0])
    value = read_metrics_file(runs[0])["val/ne/mean"]["value"]
    assert best_line(runs[0]) == (
        f"Best val/ne/mean: {value:.4f} at step {best.checkpoint.step:,} of 12, where "
        "trainer.max_steps ended the run"
    )
