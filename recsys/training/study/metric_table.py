"""The outcome of a study without a baseline: metrics of each variant over seeds."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich.console import Console

from recsys.data.schema import Split
from recsys.training.evaluate import PREFIXES
from recsys.training.metrics_file import Metrics, read_metrics_file
from recsys.training.report.figures import STYLE
from recsys.training.study.page import FIGURE_FILE, JSON_FILE, PAGE_FILE, WIDTH, Rows, markdown
from recsys.training.study.plan import StudyConfig, StudyRun
from recsys.training.study.summary import Spread, as_json, revisions, spreads, training_seconds
from recsys.training.tables import UNDEFINED, text_table


@dataclass(frozen=True)
class MetricRow:
    """One line of the table.

    Attributes:
        seeds: of the runs; none for an untrained scorer.
        training_seconds: wall time of `recsys train`, mean over seeds; NaN for a scorer.
        metrics: by name, without the split's prefix.
    """

    seeds: list[int]
    training_seconds: float
    metrics: dict[str, Spread]


@dataclass(frozen=True)
class MetricTable:
    """A study's outcome.

    Attributes:
        name: of the study.
        split: the rows that were measured.
        shown: names of the metrics in the table.
        rows: by variant, then by untrained scorer.
        protocols: sentence of each shown metric, of the first run.
        revisions: git revisions the runs were made with.
    """

    name: str
    split: str
    shown: list[str]
    rows: dict[str, MetricRow]
    protocols: dict[str, str]
    revisions: list[str]


def metric_table(config: StudyConfig, runs: Sequence[StudyRun]) -> MetricTable:
    """Gather the finished runs of a study."""
    prefix = PREFIXES[Split(config.split)]
    metrics = {run.folder: read_metrics_file(run.folder) for run in runs}
    rows = {}
    for variant in config.variants:
        own = [run for run in runs if run.variant == variant]
        if own:
            found = _without_prefix(spreads(own, metrics), f"{prefix}/")
            rows[variant] = MetricRow([r.seed for r in own], training_seconds(own), found)
    first = metrics[runs[0].folder]
    untrained = spreads(runs[:1], metrics)
    for scorer in config.scorers:
        found = _without_prefix(untrained, f"{prefix}/{scorer}/")
        rows[scorer] = MetricRow([], math.nan, found)
    return MetricTable(
        name=config.name,
        split=config.split,
        shown=config.metrics,
        rows=rows,
        protocols=_protocols(first, prefix, config.metrics),
        revisions=revisions(runs),
    )


def write_metric_table(table: MetricTable, folder: Path) -> None:
    """Write the page, the figures it stands on, and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(as_json(table))
    (folder / PAGE_FILE).write_text(_page(table))
    _save_figure(table, folder / FIGURE_FILE)


def print_metric_table(table: MetricTable, folder: Path) -> None:
    """Print the table and where everything lies."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(text_table(f"study {table.name}", table_rows(table)))
    console.print(_caption(table), highlight=False)
    console.print(f"Written: {', '.join(str(folder / n) for n in (PAGE_FILE, JSON_FILE))}")


def table_rows(table: MetricTable) -> Rows:
    """Headings, then a row per variant and scorer; ± is the standard deviation over seeds."""
    rows = [["variant", *table.shown, "seeds", "training, s"]]
    for name, row in table.rows.items():
        cells = [_cell(row.metrics.get(metric)) for metric in table.shown]
        seconds = row.training_seconds
        time = UNDEFINED if math.isnan(seconds) else f"{seconds:,.0f}"
        rows.append([name, *cells, ", ".join(map(str, row.seeds)) or UNDEFINED, time])
    return rows


def _page(table: MetricTable) -> str:
    protocols = "\n".join(f"- `{name}`: {text}." for name, text in table.protocols.items())
    parts = [
        f"# Study {table.name}",
        _caption(table),
        markdown(table_rows(table)),
        f"![metrics by variant]({FIGURE_FILE})",
        "## Protocol",
        "Of the first run:",
        protocols,
        f"Git revision: {', '.join(table.revisions)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _caption(table: MetricTable) -> str:
    return (
        f"Metrics of the split {table.split}; mean over seeds ± their standard deviation where "
        "there are several, otherwise with half the 95 % bootstrap interval over users in brackets."
    )


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return UNDEFINED
    if spread.sd is not None:
        return f"{spread.mean:.4f} ± {spread.sd:.4f}"
    [only] = spread.by_seed.values()
    half = (only.high - only.low) / 2
    return f"{spread.mean:.4f}" + ("" if math.isnan(half) else f" [{half:.4f}]")


def _save_figure(table: MetricTable, path: Path) -> None:
    """A panel per metric: a dot per variant, with the spread over seeds or the interval."""
    names = list(table.rows)
    with matplotlib.rc_context(STYLE):
        size = (1.8 + 2.2 * len(table.shown), 1.2 + 0.28 * len(names))
        figure = Figure(figsize=size, dpi=150)
        panels = figure.subplots(1, len(table.shown), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, table.shown, strict=True):
            for position, name in enumerate(names):
                spread = table.rows[name].metrics.get(metric)
                if spread is None:
                    continue
                colour = "C0" if table.rows[name].seeds else "C7"
                values = [one.value for one in spread.by_seed.values()]
                first = spread.by_seed[min(spread.by_seed)]
                interval = [first.low, first.high]
                axes.plot(interval, [position] * 2, color=colour, linewidth=4, alpha=0.25)
                axes.plot(values, [position] * len(values), "o", color=colour, markersize=2.5)
                axes.plot(spread.mean, position, "o", color=colour, markersize=5)
            axes.set_title(metric, fontsize=9.5)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        figure.tight_layout()
        figure.savefig(path, bbox_inches="tight")


def _without_prefix(found: dict[str, Spread], prefix: str) -> dict[str, Spread]:
    return {
        name.removeprefix(prefix): spread
        for name, spread in found.items()
        if name.startswith(prefix)
    }


def _protocols(metrics: Metrics, prefix: str, shown: Sequence[str]) -> dict[str, str]:
    measured = {name: metrics.get(f"{prefix}/{name}") for name in shown}
    return {name: str(metric["protocol"]) for name, metric in measured.items() if metric}
