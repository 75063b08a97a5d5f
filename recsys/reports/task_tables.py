"""Metrics as tables for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys.core.console import UNDEFINED, output_console, text_table
from recsys.evaluation.config import EvaluateConfig
from recsys.evaluation.metrics_file import Metrics, is_defined


@dataclass(frozen=True)
class TableColumn:
    """A column of a table with one row per task.

    Attributes:
        heading: of the column.
        metrics: names before the task; the first that the task has is shown.
        form: of the number.
        scale: the number is multiplied by it.
    """

    heading: str
    metrics: tuple[str, ...]
    form: str
    scale: float = 1


MEASURED = (
    TableColumn("NE (MSE)", ("ne", "mse"), "{:.4f}"),
    TableColumn("best in reach", ("best_within_reach/ne", "best_within_reach/mse"), "{:.4f}"),
    TableColumn("best", ("best_absolute/ne", "best_absolute/mse"), "{:.4f}"),
    TableColumn("AUC", ("auc",), "{:.4f}"),
    TableColumn("calibration", ("calibration",), "{:.3f}"),
    TableColumn("calibration error", ("ece",), "{:.4f}"),
    TableColumn("calibrated: NE", ("calibrated/ne",), "{:.4f}"),
    TableColumn("its error", ("calibrated/ece",), "{:.4f}"),
)
LISTED = (
    TableColumn("AUC", ("list_auc",), "{:.4f}"),
    TableColumn("nDCG@5", ("list_ndcg@5",), "{:.4f}"),
    TableColumn("nDCG@10", ("list_ndcg@10",), "{:.4f}"),
)
COMPARED = (
    TableColumn("NE (MSE) change, %", ("relative_ne_delta", "relative_mse_delta"), "{:+.2f}"),
    TableColumn("gain captured, %", ("gain_captured",), "{:.1f}", scale=100),
    TableColumn("of the absolute, %", ("gain_captured_absolute",), "{:.1f}", scale=100),
)
BY_ITEM = (
    TableColumn("seen: NE (MSE)", ("seen_items/ne", "seen_items/mse"), "{:.4f}"),
    TableColumn(
        "change, %",
        ("seen_items/relative_ne_delta", "seen_items/relative_mse_delta"),
        "{:+.2f}",
    ),
    TableColumn("unseen: NE (MSE)", ("unseen_items/ne", "unseen_items/mse"), "{:.4f}"),
    TableColumn(
        "change, %",
        ("unseen_items/relative_ne_delta", "unseen_items/relative_mse_delta"),
        "{:+.2f}",
    ),
)

EXPORTED = (
    TableColumn("trained: NE (MSE)", ("trained/ne", "trained/mse"), "{:.4f}"),
    TableColumn("exported: NE (MSE)", ("ne", "mse"), "{:.4f}"),
    TableColumn("change of NE, %", ("ne_delta",), "{:+.2f}", scale=100),
)


def print_evaluation(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print what was measured, the comparison, and items seen and unseen in the fit period."""
    prefix = config.prefix
    console = output_console()
    titles = {
        f"{config.run_dir} on the split {config.split}": MEASURED,
        "the order of the items of a request, mean over requests": LISTED,
        f"{config.run_dir} against {config.against}": COMPARED,
        "items seen and not seen in the fit period": BY_ITEM,
    }
    for title, columns in titles.items():
        rows = metric_rows(metrics, prefix, columns)
        if len(rows[0]) > 1:
            console.print(text_table(title, rows))
    any_metric = metrics.get(f"{prefix}/ne/mean") or next(iter(metrics.values()))
    console.print(f"Protocol: {any_metric['protocol']}")
    if config.against is not None:
        console.print(
            f"Below 0 is better than {config.against}; in brackets the "
            f"{config.bootstrap.confidence:.0%} bootstrap interval over users.",
        )


def metric_rows(metrics: Metrics, prefix: str, columns: tuple[TableColumn, ...]) -> list[list[str]]:
    """Headings, then one row per task; columns without any number are left out."""
    tasks = task_names(metrics, prefix)
    cells = [[_find(metrics, prefix, column, task) for task in tasks] for column in columns]
    kept = [(column, found) for column, found in zip(columns, cells, strict=True) if any(found)]
    rows = [["task", *(column.heading for column, _ in kept)]]
    for position, task in enumerate(tasks):
        rows.append([task, *(number(found[position], column) for column, found in kept)])
    return rows


def task_names(metrics: Metrics, prefix: str) -> list[str]:
    """Tasks in the order they were measured, ``mean`` last."""
    inside = (name.removeprefix(f"{prefix}/") for name in metrics if name.startswith(f"{prefix}/"))
    parts = [name.split("/") for name in inside]
    names = [p[1] for p in parts if len(p) == 2 and p[0] in ("ne", "mse")]
    return sorted(dict.fromkeys(names), key=lambda name: name == "mean")


def number(metric: Mapping[str, Any] | None, column: TableColumn) -> str:
    """A metric as text, with its interval where it has one."""
    if metric is None or not is_defined(metric["value"]):
        return UNDEFINED
    text = column.form.format(column.scale * metric["value"])
    if not is_defined(metric.get("low")):
        return text
    low, high = (column.form.format(column.scale * metric[end]) for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def _find(
    metrics: Metrics, prefix: str, column: TableColumn, task: str
) -> Mapping[str, Any] | None:
    found = (metrics.get(f"{prefix}/{name}/{task}") for name in column.metrics)
    return next((metric for metric in found if metric is not None), None)
