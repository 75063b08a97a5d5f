"""The plots of studies: changes by task and variant, and curves or dots of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys.reports.figures import GREY, STYLE
from recsys.studies.comparison import Comparison
from recsys.studies.metric_table import MetricRow, MetricTable
from recsys.studies.spread import Spread

_PANELS = {"": "all rows", "seen_items": "items seen in training", "unseen_items": "unseen items"}
#: Space between the lines of two variants, as a share of the space between two tasks.
_SPACING = 0.8
_MARGIN = 0.08
_SMALL = 7
#: More points than these are not named one by one.
_MOST_POINTS = 12
#: From this ratio of the largest to the smallest point on, the axis is logarithmic.
_WIDE = 10


def comparison_figure(comparison: Comparison) -> Figure:
    """One panel per group of rows, a line per task and variant."""
    groups = [group for group in comparison.groups if _has_values(comparison, group)]
    groups = groups or list(comparison.groups)[:1]  # an empty panel, where all have diverged
    width, lines = 1.6 + 3.6 * len(groups), len(comparison.tasks) * len(comparison.compared)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panel_row(len(groups), width, 1.6 + 0.2 * lines, shared_lines=True)
        for axes, group in zip(panels, groups, strict=True):
            _draw_changes(axes, comparison, group)
        panels[0].set_yticks(range(len(comparison.tasks)), comparison.tasks)
        panels[0].set_ylim(len(comparison.tasks) - 0.5, -0.5)
        figure.supxlabel(f"change of NE (MSE) against {comparison.baseline}, %", fontsize=9.5)
        _legend_below(figure, panels[0])
        figure.tight_layout()
        return figure


def _draw_changes(axes: Axes, comparison: Comparison, group: str) -> None:
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    ends: list[float] = [0.0]
    for number, name in enumerate(comparison.compared):
        colour = f"C{number % 10}"
        offset = _SPACING * ((number + 0.5) / len(comparison.compared) - 0.5)
        for position, task in enumerate(comparison.tasks):
            change = comparison.change(name, group, task)
            if change is None:
                continue
            _draw_spread(axes, change, position + offset, colour, name)
            ends += [change.low, change.high]
            # intervals of rare tasks may leave the panel, or the others could not be seen
            if not comparison.is_rare(group, task):
                interval = (change.first.low, change.first.high)
                ends += [end for end in interval if math.isfinite(end)]
    margin = _MARGIN * (max(ends) - min(ends) or 1)
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.set_title(f"{_PANELS[group]} ({comparison.groups[group].rows:,})", fontsize=9.5)


def _has_values(comparison: Comparison, group: str) -> bool:
    return any(
        comparison.change(name, group, task)
        for name in comparison.compared
        for task in comparison.tasks
    )


def metric_figure(table: MetricTable) -> Figure:
    """A panel per metric; bands are the first seed's bootstrap interval, n the queries measured."""
    with matplotlib.rc_context(STYLE):
        figure = _curves(table) if table.lines else _dots(table)
        figure.tight_layout()
        return figure


def _curves(table: MetricTable) -> Figure:
    """A curve per line; untrained scorers are horizontal."""
    points = sorted({float(row.at or 0) for line in table.lines.values() for row in line})
    named = len(points) if len(points) <= _MOST_POINTS else 0
    width = 0.6 + max(3.0, 0.5 * named) * len(table.shown)
    figure, panels = _panel_row(len(table.shown), width, 3.2)
    for axes, metric in zip(panels, table.shown, strict=True):
        for number, (name, line) in enumerate(table.lines.items()):
            _draw_line(axes, name, [row for row in line if metric in row.metrics], metric, number)
        scorers = {name: row for name, row in table.rows.items() if not row.seeds}
        for (name, scorer), style in zip(scorers.items(), cycle(("--", ":", "-."))):
            if metric in scorer.metrics:
                axes.axhline(scorer.metrics[metric].mean, color=GREY, linestyle=style, label=name)
        if points[0] > 0 and points[-1] >= _WIDE * points[0]:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # as text, not as the formula 10^1
        _set_points(axes, table, metric, points)
    figure.supxlabel(table.axis, fontsize=9.5)
    _legend_below(figure, panels[0])
    return figure


def _draw_line(axes: Axes, name: str, line: Sequence[MetricRow], metric: str, number: int) -> None:
    colour = f"C{number % 10}"
    places = [row.at for row in line]
    spreads = [row.metrics[metric] for row in line]
    lows, highs = [one.first.low for one in spreads], [one.first.high for one in spreads]
    axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
    for place, spread in zip(places, spreads, strict=True):
        values = [one.value for one in spread.by_seed.values()]
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
    if len(points) <= _MOST_POINTS:
        axes.set_xticks(points, labels, fontsize=_SMALL if common is None else None)
        axes.set_xticks([], minor=True)
    axes.set_title(_title(metric, common), fontsize=9.5)


def _dots(table: MetricTable) -> Figure:
    names = list(table.rows)
    width, height = 1.8 + 2.2 * len(table.shown), 1.3 + 0.28 * len(names)
    figure, panels = _panel_row(len(table.shown), width, height, shared_lines=True)
    for axes, metric in zip(panels, table.shown, strict=True):
        common = _common_n(table, metric)
        for position, row in enumerate(table.rows.values()):
            spread = row.metrics.get(metric)
            if spread is None:
                continue
            _draw_spread(axes, spread, position, "C0" if row.seeds else "C7", opacity=1)
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


def _panel_row(
    number: int, width: float, height: float, shared_lines: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels in a row."""
    figure = Figure(figsize=(width, height), dpi=150)
    return figure, figure.subplots(1, number, sharey=shared_lines, squeeze=False)[0]


def _draw_spread(
    axes: Axes, spread: Spread, line: float, colour: str, label: str = "", opacity: float = 0.6
) -> None:
    """A bar for the first seed's bootstrap interval, a small dot per seed, a large one for the
    mean.
    """
    first = spread.first
    axes.plot([first.low, first.high], [line] * 2, color=colour, linewidth=4, alpha=0.25)
    seeds = [one.value for one in spread.by_seed.values()]
    axes.plot(seeds, [line] * len(seeds), "o", color=colour, markersize=2.5, alpha=opacity)
    axes.plot(spread.mean, line, "o", color=colour, markersize=5, label=label or None)


def _legend_below(figure: Figure, axes: Axes) -> None:
    """The labels of a panel below the figure, each once; nothing where there are none."""
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    if by_label:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0)}
        figure.legend(by_label.values(), by_label.keys(), ncols=4, **place)
