"""Metrics as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from recsys.data.schema import Split
from recsys.training.evaluate import PREFIXES, EvaluateConfig
from recsys.training.metrics_file import Metrics

#: Columns of the evaluation table: heading, metric name before the task, form of the number.
COLUMNS = (
    ("NE", "ne", "{:.4f}"),
    ("best NE in reach", "best_within_reach/ne", "{:.4f}"),
    ("best NE", "best_absolute/ne", "{:.4f}"),
    ("AUC", "auc", "{:.4f}"),
    ("MSE", "mse", "{:.2f}"),
    ("calibration", "calibration", "{:.3f}"),
    ("Δ NE %", "relative_ne_delta", "{:+.3f}"),
    ("Δ MSE %", "relative_mse_delta", "{:+.3f}"),
    ("gain captured", "gain_captured", "{:.1%}"),
)

#: Groups of rows as metric names have them, and their titles.
GROUPS = {
    "": "all items",
    "seen_items": "items seen in the fit period",
    "unseen_items": "items not seen in the fit period",
}

#: Stands for a number that is not defined.
UNDEFINED = "-"


def print_evaluation(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print one row per task, all items and, apart, items seen and unseen in the fit period."""
    prefix = PREFIXES[Split(config.split)]
    console = Console()
    for group in GROUPS:
        place = f"{prefix}/{group}".rstrip("/")
        table = metrics_table(metrics, place)
        if table.row_count:
            table.title = f"{config.run_dir}, split {config.split}, {GROUPS[group]}"
            console.print(table)
    any_metric = metrics.get(f"{prefix}/ne/mean") or next(iter(metrics.values()))
    console.print(f"Protocol: {any_metric['protocol']}", highlight=False)
    if config.against is not None:
        console.print(
            f"Δ is relative to {config.against}, below 0 is better; in brackets the "
            f"{config.bootstrap.confidence:.0%} bootstrap interval over users.",
            highlight=False,
        )


def metrics_table(metrics: Metrics, place: str) -> Table:
    """One row per task of the metrics below ``place``; columns without a number are left out."""
    tasks = task_names(metrics, place)
    columns = [c for c in COLUMNS if any(f"{place}/{c[1]}/{task}" in metrics for task in tasks)]
    table = Table("task")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for task in tasks:
        cells = [number(metrics.get(f"{place}/{name}/{task}"), form) for _, name, form in columns]
        table.add_row(task, *cells)
    return table


def task_names(metrics: Metrics, place: str) -> list[str]:
    """Tasks in the order they were measured, ``mean`` last."""
    tails = [name.removeprefix(f"{place}/") for name in metrics if name.startswith(f"{place}/")]
    measured = [tail.split("/") for tail in tails]
    names = [parts[1] for parts in measured if len(parts) == 2 and parts[0] in ("ne", "mse")]
    unique = list(dict.fromkeys(names))
    return sorted(unique, key=lambda name: name == "mean")


def number(metric: Mapping[str, Any] | None, form: str) -> str:
    """A metric as text, with its interval where it has one."""
    if metric is None or metric["value"] is None:
        return UNDEFINED
    text = form.format(metric["value"])
    if metric.get("low") is None:
        return text
    return f"{text} [{form.format(metric['low'])}, {form.format(metric['high'])}]"
