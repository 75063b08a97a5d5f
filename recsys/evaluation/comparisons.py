"""Metrics of predictions, alone and against those of another run on the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.paired import Bootstrap, Interval, captured_gain, relative_delta
from recsys.evaluation.predictions import task_predictions
from recsys.evaluation.task_metrics import TaskMetrics
from recsys.evaluation.together import MEAN, MSE_DELTA, NE_DELTA, MeasuredTogether

#: Comparison before the task: the share of the gain possible for a model with the gap.
GAIN_CAPTURED = "gain_captured"

#: Truths by the name of the share they define.
GAIN_NAMES = {"best_within_reach": GAIN_CAPTURED, "best_absolute": "gain_captured_absolute"}


def measure(
    frame: pl.DataFrame, tasks: Sequence[Task], column: str = "prediction"
) -> dict[str, float]:
    """NE, AUC, calibration and MSE per task of a predictions file, or of one of its truths."""
    return measure_scores(scores(frame, tasks, column), labels_of(frame, tasks), tasks)


def measure_scores(
    predictions: NDArray[np.float64], labels: NDArray[np.float64], tasks: Sequence[Task]
) -> dict[str, float]:
    """The same of predictions and labels [R, K]."""
    metrics = TaskMetrics(tasks)
    metrics.update(torch.from_numpy(predictions), torch.from_numpy(labels))
    return metrics.compute()


def compare(
    frame: pl.DataFrame, control: pl.DataFrame, tasks: Sequence[Task], bootstrap: Bootstrap
) -> dict[str, Interval]:
    """Every comparison of two runs' predictions, by metric name.

    Args:
        frame: predictions of the run.
        control: predictions of the run it is compared with, on the same rows.
        tasks: the tasks.
        bootstrap: how intervals are made.

    Returns:
        ``relative_ne_delta/<task>`` (``relative_mse_delta`` for a regression task) in percent,
        below 0 where the run is better; where the truth is known, ``gain_captured/<task>`` and
        ``gain_captured_absolute/<task>``, the shares of the gain possible for a model with the
        gap and without it. ``…/mean`` are the same of the mean NEs.

    Raises:
        DataError: the two were not measured on the same rows.
    """
    comparisons = {}
    for task in tasks:
        run, other = task_predictions(frame, task), task_predictions(control, task)
        name = NE_DELTA if task.kind == TaskKind.BINARY else MSE_DELTA
        comparisons[f"{name}/{task.name}"] = relative_delta(run, other, bootstrap)
        for truth, gain in GAIN_NAMES.items():
            if f"{truth}_{task.name}" in frame.columns:
                best = task_predictions(frame, task, truth)
                comparisons[f"{gain}/{task.name}"] = captured_gain(other, run, best, bootstrap)
    return comparisons | _of_means(frame, control, tasks, bootstrap)


def scores(frame: pl.DataFrame, tasks: Sequence[Task], column: str) -> NDArray[np.float64]:
    """[R, K] of a predictions file: ``prediction``, or one of the truths."""
    return frame.select(f"{column}_{task.name}" for task in tasks).to_numpy().astype(np.float64)


def labels_of(frame: pl.DataFrame, tasks: Sequence[Task]) -> NDArray[np.float64]:
    """[R, K] of a predictions file, NaN where not observed."""
    return frame.select(task.column for task in tasks).to_numpy().astype(np.float64)


def _of_means(
    frame: pl.DataFrame, control: pl.DataFrame, tasks: Sequence[Task], bootstrap: Bootstrap
) -> dict[str, Interval]:
    ours, theirs = frame.sort("row_id"), control.sort("row_id")
    predictions = {"run": scores(ours, tasks, "prediction")}
    predictions["other"] = scores(theirs, tasks, "prediction")
    truths = [truth for truth in GAIN_NAMES if f"{truth}_{tasks[0].name}" in frame.columns]
    predictions |= {truth: scores(ours, tasks, truth) for truth in truths}
    user, labels = ours["user"].to_numpy(), labels_of(ours, tasks)
    together = MeasuredTogether(user, labels, predictions, tasks, bootstrap)
    change = together.changes("run", "other")[f"{NE_DELTA}/{MEAN}"]
    gains = {
        f"{GAIN_NAMES[truth]}/{MEAN}": together.gain_of_mean("other", "run", truth)
        for truth in truths
    }
    return {f"{NE_DELTA}/{MEAN}": change, **gains}
