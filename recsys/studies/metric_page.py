"""A table of metrics as study.md, study.json, study.png and in the terminal."""

from __future__ import annotations

import math
import sys

from rich.console import Console

from recsys.core.console import UNDEFINED, text_table
from recsys.studies.comparison_page import WIDTH, Rows, as_json, markdown
from recsys.studies.metric_figure import save_metric_figure
from recsys.studies.metric_table import MetricRow, MetricTable, change
from recsys.studies.plan import StudyConfig
from recsys.studies.spread import Spread


def write_metric_table(table: MetricTable, config: StudyConfig) -> None:
    """Write the page, the figures it stands on, and the plot."""
    config.folder.mkdir(parents=True, exist_ok=True)
    config.file("json").write_text(as_json(table))
    config.file("md").write_text(_page(table, config.file("png").name))
    save_metric_figure(table, config.file("png"))


def print_metric_table(table: MetricTable, config: StudyConfig) -> None:
    """Print the table and where everything lies."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(text_table(f"study {table.title}", table_rows(table)))
    console.print(_caption(table), highlight=False)
    console.print(f"Written: {config.file('md')}, {config.file('json')}", highlight=False)


def table_rows(table: MetricTable) -> Rows:
    """Headings, then a row per variant, point and scorer; ± is the deviation over seeds."""
    rows = [[*_first_headings(table), *table.shown, "n", "seeds", "training, s"]]
    for name, row in table.rows.items():
        seconds = row.training_seconds
        rows.append(
            [
                *_first_cells(table, name, row),
                *(_cell(row.metrics.get(metric)) for metric in table.shown),
                _n(row, table.shown),
                ", ".join(map(str, row.seeds)) or UNDEFINED,
                UNDEFINED if math.isnan(seconds) else f"{seconds:,.0f}",
            ]
        )
    return rows


def change_rows(table: MetricTable) -> Rows:
    """Headings, then the percent change of each point against the first of its line."""
    rows = [[*_first_headings(table), *table.shown]]
    first_of = {name: line[0] for name, line in table.lines.items()}
    for name, row in table.rows.items():
        if isinstance(row.at, float) and row is not first_of[row.line]:
            changes = (change(row, first_of[row.line], metric) for metric in table.shown)
            cells = (_cell(one, "+.1f") for one in changes)
            rows.append([*_first_cells(table, name, row), *cells])
    return rows


def _page(table: MetricTable, picture: str) -> str:
    protocols = "\n".join(f"- `{name}`: {text}." for name, text in table.protocols.items())
    parts = [
        f"# Study {table.title}",
        _caption(table),
        markdown(table_rows(table)),
        f"![metrics by {table.axis or 'variant'}]({picture})",
    ]
    changes = change_rows(table)
    if len(changes) > 1:
        parts += ["## Change against the first point of each line, %", markdown(changes)]
    parts += [
        "## Protocol",
        "Of the first run:",
        protocols,
        f"Git revision: {', '.join(table.revisions)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _caption(table: MetricTable) -> str:
    return (
        f"Metrics of the split {table.split}; mean over seeds ± their standard deviation where "
        "there are several, otherwise with half the 95 % bootstrap interval over users in "
        "brackets. n: queries measured, one number per candidate set where they differ."
    )


def _first_headings(table: MetricTable) -> list[str]:
    return ["variant", *([] if table.axis is None else [table.axis])]


def _first_cells(table: MetricTable, name: str, row: MetricRow) -> list[str]:
    at = UNDEFINED if row.at is None else f"{row.at:g}" if isinstance(row.at, float) else row.at
    return [row.line or name, *([] if table.axis is None else [at])]


def _n(row: MetricRow, shown: list[str]) -> str:
    counts = dict.fromkeys(row.queries[metric] for metric in shown if metric in row.queries)
    return " / ".join(f"{count:,}" for count in counts) or UNDEFINED


def _cell(spread: Spread | None, form: str = ".4f") -> str:
    if spread is None:
        return UNDEFINED
    if spread.sd is not None:
        return f"{spread.mean:{form}} ± {spread.sd:{form.lstrip('+')}}"
    one = next(one for one in spread.by_seed.values() if math.isfinite(one.value))
    half = (one.high - one.low) / 2
    return f"{spread.mean:{form}}" + ("" if math.isnan(half) else f" [{half:{form}}]")
