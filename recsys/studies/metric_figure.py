"""The plot of a table of metrics: curves over an axis of numbers, otherwise a dot per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys.reports.figures import GREY, STYLE
from recsys.studies.metric_table import MetricRow, MetricTable
from recsys.studies.spread import Spread

_SMALL = 7
#: From this ratio of the largest to the smallest point on, the axis is logarithmic.
_WIDE = 10


def save_metric_figure(table: MetricTable, path: Path) -> None:
    """Write :func:`metric_figure` as a picture."""
    metric_figure(table).savefig(path, bbox_inches="tight")


def metric_figure(table: MetricTable) -> Figure:
    """One panel per metric; bars and bands are the first seed's bootstrap interval, small dots the
    seeds, large ones their mean, n the queries measured.
    """
    with matplotlib.rc_context(STYLE):
        figure = _curves(table) if table.lines else _dots(table)
        figure.tight_layout()
        return figure


def _curves(table: MetricTable) -> Figure:
    """A curve per line; untrained scorers are horizontal."""
    points = sorted({float(row.at or 0) for line in table.lines.values() for row in line})
    width = max(3.0, 0.5 * len(points))
    figure = Figure(figsize=(0.6 + width * len(table.shown), 3.2), dpi=150)
    panels = figure.subplots(1, len(table.shown), squeeze=False)[0]
    for axes, metric in zip(panels, table.shown, strict=True):
        for number, (name, line) in enumerate(table.lines.items()):
            _draw_line(axes, name, [row for row in line if metric in row.metrics], metric, number)
        scorers = {name: row for name, row in table.rows.items() if not row.seeds}
        for (name, row), style in zip(scorers.items(), cycle(("--", ":", "-."))):
            if metric in row.metrics:
                axes.axhline(row.metrics[metric].mean, color=GREY, linestyle=style, label=name)
        if points[0] > 0 and points[-1] >= _WIDE * points[0]:
            axes.set_xscale("log")
        _set_points(axes, table, metric, points)
    figure.supxlabel(table.axis, fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="upper center", ncols=4, bbox_to_anchor=(0.5, 0))
    return figure


def _draw_line(axes: Axes, name: str, line: Sequence[MetricRow], metric: str, number: int) -> None:
    colour = f"C{number % 10}"
    places = [row.at for row in line]
    spreads = [row.metrics[metric] for row in line]
    intervals = [_interval(spread) for spread in spreads]
    axes.fill_between(places, *zip(*intervals, strict=True), color=colour, alpha=0.15, linewidth=0)
    for place, spread in zip(places, spreads, strict=True):
        values = _values(spread)
        axes.plot([place] * len(values), values, "o", color=colour, markersize=2.5, alpha=0.6)
    means = [spread.mean for spread in spreads]
    axes.plot(places, means, "o-", color=colour, markersize=5, label=name or None)


def _set_points(axes: Axes, table: MetricTable, metric: str, points: Sequence[float]) -> None:
    """Title and ticks; n stands in the title where it is the same at all points."""
    labels = [f"{point:g}" for point in points]
    common = _common_n(table, metric)
    if common is None:
        rows = [row for line in table.lines.values() for row in line if metric in row.queries]
        for place, point in enumerate(points):
            counts = sorted({row.queries[metric] for row in rows if row.at == point})
            labels[place] += "".join(f"\nn = {count:,}" for count in counts)
    axes.set_xticks(points, labels, fontsize=_SMALL if common is None else None)
    axes.set_xticks([], minor=True)
    axes.set_title(_title(metric, common), fontsize=9.5)


def _dots(table: MetricTable) -> Figure:
    names = list(table.rows)
    size = (1.8 + 2.2 * len(table.shown), 1.3 + 0.28 * len(names))
    figure = Figure(figsize=size, dpi=150)
    panels = figure.subplots(1, len(table.shown), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, table.shown, strict=True):
        common = _common_n(table, metric)
        for position, row in enumerate(table.rows.values()):
            spread = row.metrics.get(metric)
            if spread is None:
                continue
            colour = "C0" if row.seeds else "C7"
            values = _values(spread)
            axes.plot(_interval(spread), [position] * 2, color=colour, linewidth=4, alpha=0.25)
            axes.plot(values, [position] * len(values), "o", color=colour, markersize=2.5)
            axes.plot(spread.mean, position, "o", color=colour, markersize=5)
            if common is None and metric in row.queries:
                text = f"n = {row.queries[metric]:,}"
                place = (spread.mean, position)
                axes.annotate(
                    text, place, (0, 4), textcoords="offset points", ha="center", fontsize=_SMALL
                )
        axes.set_title(_title(metric, common), fontsize=9.5)
        axes.margins(x=0.12)
    labels = [_label(name, row) for name, row in table.rows.items()]
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].set_ylim(len(names) - 0.5, -0.6)
    return figure


def _label(name: str, row: MetricRow) -> str:
    return ", ".join(str(part) for part in (row.line or name, row.at) if part is not None)


def _title(metric: str, common: int | None) -> str:
    return metric if common is None else f"{metric}\nn = {common:,}"


def _common_n(table: MetricTable, metric: str) -> int | None:
    """The number of queries of all rows; None where it differs or is not known."""
    counts = {row.queries.get(metric) for row in table.rows.values()}
    return counts.pop() if len(counts) == 1 else None


def _interval(spread: Spread) -> tuple[float, float]:
    first = spread.by_seed[min(spread.by_seed)]
    return first.low, first.high


def _values(spread: Spread) -> list[float]:
    return [one.value for one in spread.by_seed.values() if math.isfinite(one.value)]
