"""Metrics of predictions, alone and against those of another run on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import torch

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.paired import Bootstrap, Interval, captured_gain, relative_delta
from recsys.evaluation.predictions import task_predictions
from recsys.evaluation.task_metrics import TaskMetrics

#: Comparisons before the task: the change of a binary task's NE and of a regression task's MSE, and
#: the share of the gain possible for a model with the gap.
NE_DELTA, MSE_DELTA, GAIN_CAPTURED = "relative_ne_delta", "relative_mse_delta", "gain_captured"

#: Truths by the name of the share they define.
GAIN_NAMES = {"best_within_reach": GAIN_CAPTURED, "best_absolute": "gain_captured_absolute"}


def measure(
    frame: pl.DataFrame, tasks: Sequence[Task], column: str = "prediction"
) -> dict[str, float]:
    """NE, AUC, calibration and MSE per task of a predictions file, or of one of its truths."""
    metrics = TaskMetrics(tasks)
    labels = frame.select(task.column for task in tasks).to_numpy()
    predictions = frame.select(f"{column}_{task.name}" for task in tasks).to_numpy()
    metrics.update(torch.from_numpy(predictions).double(), torch.from_numpy(labels))
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
        gap and without it. ``…/mean`` are the same of the mean NEs, without an interval.

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
    return comparisons | _of_means(frame, control, tasks)


def _of_means(
    frame: pl.DataFrame, control: pl.DataFrame, tasks: Sequence[Task]
) -> dict[str, Interval]:
    run = measure(frame, tasks).get("ne/mean", math.nan)
    other = measure(control, tasks).get("ne/mean", math.nan)
    values = {f"{NE_DELTA}/mean": 100 * (run - other) / other}
    for truth, gain in GAIN_NAMES.items():
        if f"{truth}_{tasks[0].name}" in frame.columns:
            best = measure(frame, tasks, truth).get("ne/mean", math.nan)
            values[f"{gain}/mean"] = (other - run) / (other - best) if other > best else math.nan
    return {name: Interval(value, math.nan, math.nan) for name, value in values.items()}
