"""A run against another on the same rows: relative NE delta and the share of the possible gain."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.data.schema import Task, TaskKind
from recsys.evaluation.paired import Bootstrap, Interval, captured_gain, relative_delta
from recsys.training.predict import task_predictions

#: Truths by the name of the share they define.
GAIN_NAMES = {"best_within_reach": "gain_captured", "best_absolute": "gain_captured_absolute"}


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
        gap and without it.

    Raises:
        DataError: the two were not measured on the same rows.
    """
    comparisons = {}
    for task in tasks:
        run, other = task_predictions(frame, task), task_predictions(control, task)
        loss = "ne" if task.kind == TaskKind.BINARY else "mse"
        name = f"relative_{loss}_delta/{task.name}"
        comparisons[name] = relative_delta(run, other, bootstrap)
        for truth, gain in GAIN_NAMES.items():
            if f"{truth}_{task.name}" in frame.columns:
                best = task_predictions(frame, task, truth)
                comparisons[f"{gain}/{task.name}"] = captured_gain(other, run, best, bootstrap)
    return comparisons
