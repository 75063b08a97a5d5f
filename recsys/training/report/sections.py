"""What the report shows of a run, computed from its folder and its data set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.schema import MILLISECONDS_PER_HOUR, Split, Task, TaskKind, TimelineKind
from recsys.data.slices import SliceSet
from recsys.training.compare import measure
from recsys.training.metrics_file import Metrics
from recsys.training.predict import HISTORY_COLUMNS
from recsys.training.systems.dv365 import DV365RunConfig

#: Requests whose slices are counted for the occupancy figure.
OCCUPANCY_REQUESTS = 500

#: Bins of history length.
HISTORY_BINS = 5


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
    edges = np.unique(np.quantile(length, np.linspace(0, 1, HISTORY_BINS + 1)).astype(int))
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
        lines[name].append(measure(rows, tasks)["ne/mean"])
        if control is not None:
            other = control.filter(pl.Series(inside))
            lines[control_name].append(measure(other, tasks)["ne/mean"])
        if "best in reach" in lines:
            lines["best in reach"].append(measure(rows, tasks, "best_within_reach")["ne/mean"])
    return labels, lines


def slice_occupancy(config: DV365RunConfig, dataset: PreparedDataset) -> dict[str, float]:
    """Share of requests for which each slice holds an event, over some requests of choose."""
    manifest: DatasetManifest = dataset.manifest
    slice_set = SliceSet.from_config(config.slices, manifest.surfaces, manifest.media_types)
    store = dataset.requests(Split.CHOOSE)
    step = max(1, len(store) // OCCUPANCY_REQUESTS)
    filled = np.zeros(len(slice_set.slices), np.int64)
    chosen = np.arange(0, len(store), step)[:OCCUPANCY_REQUESTS]
    gap = round(config.loader.gap_hours * MILLISECONDS_PER_HOUR)
    for request in chosen:
        user, moment = store.user[request : request + 1], store.request_time[request : request + 1]
        explicit, implicit = (
            dataset.timelines.histories(user, moment - gap, kind, config.loader.max_events)
            for kind in (TimelineKind.EXPLICIT, TimelineKind.IMPLICIT)
        )
        filled += slice_set.slice_counts(explicit, implicit, moment) > 0
    names = (one.name for one in slice_set.slices)
    return dict(zip(names, (filled / len(chosen)).tolist(), strict=True))
