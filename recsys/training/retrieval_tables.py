"""Retrieval metrics as tables for the terminal: one per candidate set, a row per scorer."""

from __future__ import annotations

import sys

from rich.console import Console

from recsys.data.schema import Split
from recsys.training.evaluate import PREFIXES, EvaluateConfig
from recsys.training.metrics_file import Metrics
from recsys.training.tables import UNDEFINED, WIDTH, text_table

#: What the rows of the model itself are called.
MODEL = "model"


def print_retrieval(metrics: Metrics, config: EvaluateConfig) -> None:
    """Print every candidate set's table, its candidates, and how intervals were made."""
    prefix = PREFIXES[Split(config.split)]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for candidates in candidate_names(metrics, prefix):
        rows = retrieval_rows(metrics, prefix, candidates)
        title = f"{config.run_dir} on the split {config.split}, candidates: {candidates}"
        console.print(text_table(title, rows))
        first = f"{prefix}/{rows[0][1]}/{candidates}"
        console.print(f"Protocol: {metrics[first]['protocol']}\n", highlight=False)


def candidate_names(metrics: Metrics, prefix: str) -> list[str]:
    """The candidate sets the model was measured on, in order."""
    parts = [name.split("/") for name in metrics if name.startswith(f"{prefix}/")]
    return list(dict.fromkeys(p[2] for p in parts if len(p) == 3 and _is_metric(p[1])))


def retrieval_rows(metrics: Metrics, prefix: str, candidates: str) -> list[list[str]]:
    """Headings, then a row per scorer and per group of queries, with half the interval's width."""
    found: dict[str, dict[str, str]] = {}
    for name, metric in metrics.items():
        parts = name.removeprefix(f"{prefix}/").split("/")
        if not name.startswith(f"{prefix}/") or parts[-1] != candidates or len(parts) > 3:
            continue
        if not _is_metric(parts[-2]):
            continue
        row = parts[0] if len(parts) == 3 else MODEL
        found.setdefault(row, {})[parts[-2]] = _cell(metric)
    headings = list(found[MODEL])
    return [
        ["", *headings],
        *(
            [row, *(cells.get(name, UNDEFINED) for name in headings)]
            for row, cells in found.items()
        ),
    ]


def _cell(metric: dict[str, float]) -> str:
    value, low, high = (metric.get(key) for key in ("value", "low", "high"))
    if value is None:
        return UNDEFINED
    if low is None or high is None:
        return f"{value:.4f}"
    return f"{value:.4f} ±{(high - low) / 2:.4f}"


def _is_metric(name: str) -> bool:
    """Whether it measures ranks; the share of targets outside a corpus and λ do not."""
    return name.partition("@")[0] in ("hits", "ndcg", "mrr")
