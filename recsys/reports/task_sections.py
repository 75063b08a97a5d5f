"""Sections of a report on a run that predicts tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.comparisons import measure
from recsys.evaluation.metrics_file import Metrics, is_defined
from recsys.evaluation.predictions import HISTORY_COLUMNS
from recsys.evaluation.with_protocol import AGAINST
from recsys.reports import data_section, figures, training_section
from recsys.reports.data_section import label_rates
from recsys.reports.page import Section, table_of_lines
from recsys.reports.task_baselines import (
    baseline_rows,
    called,
    change,
    measured_baselines,
    unit,
    verdict,
)
from recsys.reports.task_material import TaskMaterial
from recsys.reports.task_tables import BY_ITEM, COMPARED, MEASURED, metric_rows
from recsys.runs.metrics_log import read_metrics

#: Bins of history length.
NUM_HISTORY_BINS = 5


def measured(material: TaskMaterial[Any]) -> Section:
    """NE, AUC and calibration of every task."""
    prefix = material.prefix
    protocol = material.metrics.get(f"{prefix}/ne/mean", {}).get("protocol", "")
    rows = metric_rows(material.metrics, prefix, MEASURED)
    split = "report" if prefix == "report" else "choose (the run was not evaluated yet)"
    return Section(f"Metrics on the split {split}", note=protocol, rows=rows)


def comparison(material: TaskMaterial[Any]) -> Iterator[Section]:
    """The change against the other run, and the share of the possible gain."""
    tasks, prefix = material.dataset.manifest.tasks, material.prefix
    names = (f"{prefix}/relative_ne_delta", f"{prefix}/relative_mse_delta")
    deltas = by_task(material.metrics, names, tasks)
    if not deltas:
        return
    gains = by_task(material.metrics, (f"{prefix}/gain_captured",), tasks)
    if gains:
        yield Section(
            "Share of the possible gain",
            note=(
                "(NE without timelines - NE with) / (NE without - best NE in reach of a model "
                "with the gap), in per cent, with 95% bootstrap intervals over users; MSE for "
                "watch time. The dashed line is everything that can be had."
            ),
            figure=(
                figures.intervals(gains, "share captured, %", reference=1, percent=True)
                if len(gains) > figures.FEW_POINTS
                else ""
            ),
        )
    measured_against = next(iter(deltas.values()))[AGAINST]
    yield Section(
        f"Against {measured_against}",
        note="Change in per cent, below 0 is better; 95% bootstrap intervals over users.",
        figure=(
            ""
            if gains or len(deltas) <= figures.FEW_POINTS
            else figures.intervals(deltas, "change of NE, %", 0, percent=False)
        ),
        rows=metric_rows(material.metrics, prefix, COMPARED),
    )
    by_item = metric_rows(material.metrics, prefix, BY_ITEM)
    if len(by_item[0]) > 1:
        yield Section("Items seen and not seen in the fit period", rows=by_item)


def training(material: TaskMaterial[Any]) -> Section:
    """Loss and the metric that picks checkpoints, by step."""
    label, other = material.labels
    runs = {label: read_metrics(material.folder)}
    if material.against is not None:
        runs[other] = read_metrics(material.against)
    note = "Checkpoints are chosen on the split choose; the report split is not looked at."
    return training_section.training(runs, "val/ne/mean", "mean NE, choose split", note)


def predictions(material: TaskMaterial[Any]) -> Iterator[Section]:
    """What follows from the predictions of an evaluated run."""
    if material.frame is None:
        return
    frame = material.frame
    tasks = material.dataset.manifest.tasks
    labels, lines = history_breakdown(frame, material.control, tasks, material.labels)
    if any(map(is_defined, itertools.chain(*lines.values()))):
        few = len(labels) <= figures.FEW_POINTS
        x = "events in the two timelines"
        yield Section(
            "By length of the history",
            note=f"Mean NE over the binary tasks in bins of equal numbers of rows, by {x}.",
            figure="" if few else figures.by_history(labels, lines, x, "mean NE"),
            rows=table_of_lines(labels, lines) if few else [],
        )
    if rows := calibration_rows(frame, tasks):
        yield Section(
            "Calibration",
            note="Ten bins of equal size per task; bars are two standard errors.",
            figure=figures.calibration(rows),
        )


def beside(material: TaskMaterial[Any]) -> Iterator[Section]:
    """The model beside the baselines it was measured with."""
    metrics, prefix = material.metrics, material.prefix
    names = measured_baselines(metrics, prefix)
    if not names:
        return
    changes = {called(name): found for name in names if (found := change(metrics, prefix, name))}
    few = len(changes) <= figures.FEW_POINTS
    what = unit(metrics, prefix)
    label = f"change of {what} by the model, %; left of the line it is better"
    yield Section(
        "Beside cheap baselines",
        note=(
            "NE, or MSE, of the same rows. Means are of the fit rows, smoothed by ten rows; "
            "LightGBM knows what was counted before each request less the gap. Intervals are 95% "
            "bootstraps over users."
        ),
        figure="" if few else figures.intervals(changes, label, 0, percent=False),
        rows=baseline_rows(metrics, prefix),
        facts={called(name): verdict(metrics, prefix, name) for name in names},
    )


def data(material: TaskMaterial[Any], facts: Mapping[str, str]) -> Section:
    """Dates, splits, and how often each label is 1."""
    manifest, rates = material.trained_on, label_rates(material.dataset)
    return data_section.data(manifest, facts, rates, manifest.has_times)


def by_task(
    metrics: Metrics, names: tuple[str, ...], tasks: tuple[Task, ...]
) -> dict[str, Mapping[str, float | None]]:
    """Per task the first of the metrics ``<name>/<task>`` that was measured."""
    found: dict[str, Mapping[str, float | None]] = {}
    for task in tasks:
        for name in names:
            if f"{name}/{task.name}" in metrics:
                found.setdefault(task.name, metrics[f"{name}/{task.name}"])
    return found


def calibration_rows(
    frame: pl.DataFrame, tasks: tuple[Task, ...]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Predictions and labels of every binary task, without unobserved rows."""
    rows = {}
    for task in tasks:
        if task.kind == TaskKind.BINARY:
            known = frame.filter(pl.col(task.column).is_not_nan())
            rows[task.name] = (
                known[f"prediction_{task.name}"].to_numpy(),
                known[task.column].cast(pl.Float64).to_numpy(),
            )
    return rows


def history_breakdown(
    frame: pl.DataFrame,
    control: pl.DataFrame | None,
    tasks: tuple[Task, ...],
    names: tuple[str, str],
) -> tuple[list[str], dict[str, list[float]]]:
    """Mean NE in bins of equal size by the number of events the two timelines held.

    Args:
        frame: predictions of a run.
        control: predictions of another run on the same rows.
        tasks: the tasks.
        names: what the lines of the two are called.
    """
    name, control_name = names
    length = sum((frame[name] for name in HISTORY_COLUMNS), start=pl.Series([0])).to_numpy()
    edges = np.unique(np.quantile(length, np.linspace(0, 1, NUM_HISTORY_BINS + 1)).astype(int))
    labels, lines = [], {name: []}  # type: tuple[list[str], dict[str, list[float]]]
    if control is not None:
        lines[control_name] = []
    if f"best_within_reach_{tasks[0].name}" in frame.columns:
        lines["best in reach"] = []
    for first, last in itertools.pairwise(edges):
        is_last = last == edges[-1]
        inside = (length >= first) & ((length <= last) if is_last else (length < last))
        labels.append(f"{first:,} to {last:,}")
        rows = frame.filter(pl.Series(inside))
        lines[name].append(measure(rows, tasks).get("ne/mean", math.nan))
        if control is not None:
            other = control.filter(pl.Series(inside))
            lines[control_name].append(measure(other, tasks).get("ne/mean", math.nan))
        if "best in reach" in lines:
            lines["best in reach"].append(
                measure(rows, tasks, "best_within_reach").get("ne/mean", math.nan)
            )
    return labels, lines
