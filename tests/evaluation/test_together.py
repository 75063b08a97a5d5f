"""NE of several scorers from the same draws of users, against the metrics of one and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.comparisons import measure_scores
from recsys.evaluation.paired import Bootstrap, TaskPredictions, relative_delta
from recsys.evaluation.together import MeasuredTogether

TASKS = (Task("click"), Task("watch_time", TaskKind.REGRESSION), Task("save"), Task("never"))
BOOTSTRAP = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    user = draw.integers(0, 40, 900)
    rates = draw.random((900, 4)) * [0.6, 1, 0.4, 0]
    labels = (draw.random((900, 4)) < rates).astype(float)
    labels[:, 1] = rates[:, 1] * 30 + draw.normal(size=900)
    labels[draw.random((900, 4)) < 0.1] = np.nan
    good = rates * [1, 30, 1, 1]
    flat = np.tile(np.nanmean(labels, axis=0), (900, 1))
    return user, labels, {"good": good, "flat": flat}


def test_values_are_those_of_the_metrics(rows) -> None:
    user, labels, predictions = rows
    together = MeasuredTogether(user, labels, predictions, TASKS, BOOTSTRAP)
    for name, scores in predictions.items():
        measured = together.measured(name)
        expected = measure_scores(scores, labels, TASKS)
        assert set(measured) == {f"ne/{t}" for t in ("click", "save", "never", "mean")} | {
            "mse/watch_time"
        }
        for metric, interval in measured.items():
            assert interval.value == pytest.approx(expected[metric], nan_ok=True), metric
            if name == "good" and metric != "ne/never":
                assert interval.low < interval.value < interval.high
    assert np.isnan(together.measured("good")["ne/never"].value)
    assert together.measured("flat")["ne/mean"].value == pytest.approx(1)


def test_changes_are_those_of_each_task_alone(rows) -> None:
    user, labels, predictions = rows
    changes = MeasuredTogether(user, labels, predictions, TASKS, BOOTSTRAP).changes("good", "flat")
    for position, (task, name) in enumerate(
        ((TASKS[0], "relative_ne_delta/click"), (TASKS[1], "relative_mse_delta/watch_time"))
    ):
        pair = [
            TaskPredictions(np.arange(900), user, labels[:, position], one[:, position], task.kind)
            for one in predictions.values()
        ]
        alone = relative_delta(*pair, BOOTSTRAP)
        assert changes[name].value == pytest.approx(alone.value)
        assert changes[name].low == pytest.approx(alone.low)
        assert changes[name].high == pytest.approx(alone.high)
    mean = changes["relative_ne_delta/mean"]
    nes = [measure_scores(one, labels, TASKS)["ne/mean"] for one in predictions.values()]
    assert mean.value == pytest.approx(100 * (nes[0] - nes[1]) / nes[1])
    assert mean.low < mean.value < mean.high < 0


def test_the_share_of_a_gain_by_hand() -> None:
    # two users with the same rows: losses ln 2 without, ln 4/3 with and at best
    labels, user = np.array([[1.0], [0.0]] * 2), np.array([0, 0, 1, 1])
    half = np.full((4, 1), 0.5)
    better = np.array([[0.75], [0.25]] * 2)
    predictions = {"without": half, "with": better, "best": better}
    together = MeasuredTogether(user, labels, predictions, TASKS[:1], Bootstrap(resamples=5))
    assert together.measured("with")["ne/click"].value == pytest.approx(np.log2(4 / 3))
    share = together.gain_of_mean("without", "with", "best")
    assert (share.value, share.low, share.high) == (1, 1, 1)
    assert np.isnan(together.gain_of_mean("best", "with", "without").value)


def test_one_user_has_no_interval() -> None:
    labels = np.array([[1.0], [0.0]])
    predictions = {"run": np.array([[0.75], [0.25]]), "other": np.full((2, 1), 0.5)}
    together = MeasuredTogether(np.zeros(2, int), labels, predictions, TASKS[:1], BOOTSTRAP)
    change = together.changes("run", "other")["relative_ne_delta/mean"]
    assert change.value < 0 and np.isnan(change.low) and np.isnan(change.high)


def test_without_a_binary_task_there_is_no_mean_ne(rows) -> None:
    user, labels, predictions = rows
    of_watch_time = {name: one[:, 1:2] for name, one in predictions.items()}
    together = MeasuredTogether(user, labels[:, 1:2], of_watch_time, TASKS[1:2], BOOTSTRAP)
    assert set(together.measured("good")) == {"mse/watch_time"}
    assert np.isnan(together.changes("good", "flat")["relative_ne_delta/mean"].value)


def test_a_prediction_that_is_not_finite_makes_its_task_and_the_mean_undefined(rows) -> None:
    user, labels, predictions = rows
    broken = predictions["good"].copy()
    broken[np.flatnonzero(~np.isnan(labels[:, 0]))[0], 0] = np.nan
    scorers = {"broken": broken, "flat": predictions["flat"]}
    together = MeasuredTogether(user, labels, scorers, TASKS, BOOTSTRAP)
    measured = together.measured("broken")
    assert np.isnan(measured["ne/click"].value) and np.isnan(measured["ne/mean"].value)
    assert np.isfinite(measured["ne/save"].value)
    assert np.isnan(together.changes("broken", "flat")["relative_ne_delta/mean"].value)
