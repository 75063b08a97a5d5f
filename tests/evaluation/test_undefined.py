"""Predictions that are not finite make a number undefined: it is never good, best or left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.comparisons import compare, measure
from recsys.evaluation.metrics import (
    AreaUnderCurve,
    Calibration,
    MeanSquaredError,
    NormalizedEntropy,
)
from recsys.evaluation.metrics_file import read_metrics_file, replace_metrics
from recsys.evaluation.paired import Bootstrap, TaskPredictions, captured_gain, relative_delta
from recsys.reports.figures import calibration
from recsys.reports.task_tables import MEASURED, metric_rows

METRICS = (NormalizedEntropy, AreaUnderCurve, Calibration, MeanSquaredError)
TASKS = (Task("liked"), Task("shared"), Task("watched", TaskKind.REGRESSION))
#: Of six rows of three users; the last label of every task was not observed.
LABELS = np.array(
    [[1, 0, 3], [0, 1, 2], [1, 1, 5], [0, 0, 1], [0, 1, 2], [math.nan] * 3], dtype=np.float32
)
QUICK = Bootstrap(resamples=50)

not_finite = st.sampled_from([math.nan, math.inf, -math.inf])
observed_row = st.integers(0, len(LABELS) - 2)


def frame(predictions: np.ndarray) -> pl.DataFrame:
    """A predictions file of those rows; the truth is known."""
    columns = {"row_id": np.arange(len(LABELS)), "user": np.array([0, 0, 1, 1, 2, 2])}
    for k, task in enumerate(TASKS):
        columns[task.column] = LABELS[:, k]
        columns[f"prediction_{task.name}"] = predictions[:, k]
        columns[f"best_within_reach_{task.name}"] = np.nan_to_num(LABELS[:, k]) * 0.8 + 0.1
    return pl.DataFrame(columns)


GOOD = np.full((6, 3), 0.5)


@given(st.sampled_from(METRICS), not_finite, observed_row, st.integers(1, 6))
def test_one_such_prediction_makes_a_metric_of_its_task_alone_undefined(
    kind: type, value: float, row: int, batch: int
) -> None:
    """Whichever batch it is in, and not where its label was not observed."""
    predictions, labels = torch.tensor(GOOD), torch.tensor(LABELS)
    predictions[row, 1] = value
    predictions[5, 0] = value
    metric = kind(3)
    for rows in torch.arange(len(labels)).split(batch):
        metric.update(predictions[rows], labels[rows])
    assert metric.compute()[:2].isnan().tolist() == [False, True]


@given(not_finite, observed_row, st.sampled_from([0, 1]))
def test_it_is_not_averaged_away(value: float, row: int, task: int) -> None:
    predictions = GOOD.copy()
    predictions[row, task] = value
    measured = measure(frame(predictions), TASKS)
    assert math.isnan(measured["ne/mean"])
    other = TASKS[1 - task].name
    assert measured[f"ne/{other}"] == measure(frame(GOOD), TASKS)[f"ne/{other}"]


def test_labels_that_define_no_entropy_are_left_out_of_the_mean_as_before() -> None:
    rows = frame(GOOD).with_columns(label_shared=pl.lit(0.0, pl.Float32))
    measured = measure(rows, TASKS)
    assert math.isnan(measured["ne/shared"])
    assert measured["ne/mean"] == measured["ne/liked"] > 0


@given(not_finite, observed_row, st.booleans())
def test_a_comparison_with_it_is_undefined_with_its_interval(
    value: float, row: int, of_the_control: bool
) -> None:
    """Also the resamples that do not draw the user of that row say nothing."""
    predictions = GOOD.copy()
    predictions[row] = value
    both = frame(predictions), frame(GOOD)
    for name, interval in compare(*(both[::-1] if of_the_control else both), TASKS, QUICK).items():
        assert np.isnan([interval.value, interval.low, interval.high]).all(), name


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_truth_that_is_not_finite_captures_nothing(kind: TaskKind) -> None:
    labels = np.array([1.0, 0.0, 1.0, 0.0])
    rows = TaskPredictions(np.arange(4), np.arange(4), labels, np.full(4, 0.5), kind)
    better = replace(rows, predictions=np.array([0.9, 0.1, 0.9, 0.1]))
    assert relative_delta(better, rows, QUICK).value < 0
    infinite = replace(rows, predictions=np.array([0.9, math.inf, 0.9, 0.1]))
    assert math.isnan(captured_gain(rows, better, infinite, QUICK).value)
    assert math.isnan(captured_gain(rows, better, infinite, QUICK).low)


def test_it_is_shown_as_undefined(tmp_path: Path) -> None:
    predictions = GOOD.copy()
    predictions[0] = math.nan
    measured = measure(frame(predictions), TASKS)
    metrics = {f"val/{name}": {"value": value, "protocol": "p"} for name, value in measured.items()}
    replace_metrics(tmp_path, "val/", metrics)
    written = read_metrics_file(tmp_path)
    assert {metric["value"] for metric in written.values()} == {None}
    for of_metrics in (metrics, written):
        cells = [cell for row in metric_rows(of_metrics, "val", MEASURED)[1:] for cell in row[1:]]
        assert set(cells) == {"-"}
    rows = {"liked": (predictions[:5, 0], LABELS[:5, 0]), "shared": (GOOD[:5, 1], LABELS[:5, 1])}
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text as text
        assert calibration(rows).count("not defined") == 1
