"""Figures of the report, each an SVG that stands inside the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recsys.core.console import visible_lines

matplotlib.use("Agg")
# names are no formulas: a `$` in one would end the figure with an error
matplotlib.rcParams["text.parse_math"] = False

WITH = "#1f5fa8"
WITHOUT = "#c2571a"
BEST = "#3c8c4e"
GREY = "#8a8f98"
#: Of lines, in their order.
COLOURS = (WITH, WITHOUT, BEST, "#7a4fa3", "#b8922f", "#2f8f9d", GREY)

#: What has so few points is said in words: a plot would show nothing that they do not.
FEW_POINTS = 3
#: Values of a run above which a curve is a running mean.
SMOOTHED = 20

STYLE = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a8",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "legend.frameon": False,
    "svg.hashsalt": "recsys",  # the same figure gives the same file
}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # matplotlib's description of the file would only name addresses outside the page
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=nothing)
    text = buffer.getvalue()
    return visible_lines(text[text.index("<svg") :])


def _axes(width: float = 7.2, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def curves(panels: Mapping[str, Mapping[str, pl.DataFrame]]) -> str:
    """Numbers by step, a panel for each kind of them.

    Args:
        panels: per label of an axis, and per name of a run, ``step`` and ``value``. Of more than
            :data:`SMOOTHED` values the running mean is drawn over them.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * max(len(panels), 1.5), 3.0))
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (label, runs) in zip(axes, panels.items(), strict=True):
            for (name, log), colour in zip(runs.items(), COLOURS, strict=False):
                step, value = log["step"], log["value"]
                if len(log) > SMOOTHED:
                    panel.plot(step, value, color=colour, alpha=0.18, linewidth=0.8)
                    smooth = value.rolling_mean(max(1, len(log) // 20), min_samples=1)
                    panel.plot(step, smooth, color=colour, linewidth=1.8, label=name)
                else:
                    panel.plot(step, value, color=colour, marker="o", markersize=4, label=name)
            panel.set(xlabel="step", ylabel=label)
            panel.legend()
        figure.tight_layout(w_pad=3)
        return _svg(figure)


def intervals(
    values: Mapping[str, Mapping[str, float | None]], label: str, reference: float, percent: bool
) -> str:
    """One dot with its bootstrap interval per task.

    Args:
        values: per task ``value``, ``low`` and ``high``.
        label: of the axis.
        reference: where a vertical line stands.
        percent: the values are shares, shown in per cent.
    """
    scale = 100 if percent else 1
    known = {task: value for task, value in values.items() if value["value"] is not None}
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(height=0.6 + 0.32 * len(known))
        axes.axvline(reference * scale, color=GREY, linewidth=1, linestyle="--")
        for position, (_, metric) in enumerate(known.items()):
            value = scale * float(metric["value"] or 0)
            low, high = metric.get("low"), metric.get("high")
            if low is not None and high is not None:
                axes.plot(
                    [scale * low, scale * high],
                    [position, position],
                    color=WITH,
                    linewidth=5,
                    alpha=0.25,
                    solid_capstyle="round",
                )
            axes.plot(value, position, "o", color=WITH, markersize=6)
            axes.annotate(
                f"{value:.1f}",
                (value, position),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(known)), list(known))
        axes.set_ylim(len(known) - 0.4, -0.7)
        axes.set_xlabel(label)
        return _svg(figure)


def calibration(
    predictions: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], bins: int = 10
) -> str:
    """Observed rate against mean prediction in bins of equal size, one panel per task.

    Args:
        predictions: per binary task the predictions and labels of its rows; a panel stays empty
            where a prediction is not finite.
        bins: number of bins.
    """
    columns = min(5, len(predictions))
    rows = -(-len(predictions) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.95 * columns, 1.95 * rows + 0.2))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(predictions) :]:
            panel.set_visible(False)
        for panel, (task, (predicted, labels)) in zip(panels, predictions.items(), strict=False):
            panel.set_title(task, fontsize=9)
            if not np.isfinite(predicted).all():
                panel.set_xlabel("not defined", fontsize=8)
                continue
            order = np.argsort(predicted, kind="stable")
            groups = [group for group in np.array_split(order, bins) if len(group)]
            mean = np.array([predicted[group].mean() for group in groups])
            rate = np.array([labels[group].mean() for group in groups])
            error = np.sqrt(rate * (1 - rate) / [len(group) for group in groups])
            limit = 1.08 * max(mean.max(), (rate + 2 * error).max())
            panel.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle="--")
            panel.errorbar(mean, rate, 2 * error, color=WITH, marker="o", markersize=3, linewidth=1)
            panel.set(xlim=(0, limit), ylim=(0, limit))
            panel.locator_params(nbins=3)
            panel.tick_params(labelsize=8)
        figure.supxlabel("mean prediction", fontsize=9)
        figure.supylabel("observed rate", fontsize=9)
        figure.tight_layout()
        return _svg(figure)


def histogram(values: NDArray[np.float64], label: str, line: float, bins: int = 60) -> str:
    """How many users have which value, and a closer look at those above a line.

    Args:
        values: one per user, at most 1.
        label: of the axis.
        line: where a vertical line stands, below 1.
        bins: of each panel.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.0))
        panels = figure.subplots(1, 2)
        for panel, least in zip(panels, (min(float(values.min()), line), line), strict=True):
            panel.hist(values[values >= least], bins=bins, range=(least, 1.0), color=WITH)
            panel.axvline(line, color=GREY, linewidth=1, linestyle="--")
            panel.set(xlabel=label)
        panels[0].set(ylabel="users")
        panels[1].set_title(f"above {line:g}", fontsize=9)
        figure.tight_layout(w_pad=2)
        return _svg(figure)


def by_history(
    labels: Sequence[str], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str
) -> str:
    """A metric by the number of events before the prediction.

    Args:
        labels: names of the bins of history length.
        lines: per name (with, without, best in reach) one value per bin.
        xlabel: what is counted.
        ylabel: the metric.
    """
    colours = dict(zip(lines, COLOURS, strict=False))
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes()
        for name, values in lines.items():
            axes.plot(labels, values, marker="o", color=colours[name], label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend()
        return _svg(figure)


def by_day(days: Sequence[int], lines: Mapping[str, Sequence[float]]) -> str:
    """Numbers over the days of a log; a day without one is a gap.

    Args:
        days: moments in ms.
        lines: per name one value per day.
    """
    moments = np.array(days, "datetime64[ms]")
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(height=2.4)
        for (name, values), colour in zip(lines.items(), COLOURS, strict=False):
            axes.plot(moments, values, marker="o", markersize=4, color=colour, label=name)
        locator = AutoDateLocator(minticks=3, maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        if len(lines) > 1:
            axes.legend(ncols=2, fontsize=8)
        else:
            axes.set(ylabel=next(iter(lines)))
        return _svg(figure)


def occupancy(shares: Mapping[str, float]) -> str:
    """Share of requests for which each slice holds at least one event."""
    ordered = sorted(shares.items(), key=lambda pair: -pair[1])
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(height=2.4)
        axes.bar(range(len(ordered)), [100 * share for _, share in ordered], color=WITH, width=0.85)
        axes.set(
            xlabel=f"{len(ordered)} slices, fullest first",
            ylabel="requests with an event (%)",
            ylim=(0, 100),
        )
        axes.set_xticks([])
        axes.grid(axis="x", visible=False)
        return _svg(figure)


def node_sizes(
    levels: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> str:
    """How unevenly items are spread over nodes, a line per level.

    Args:
        levels: per name the nodes so far, fullest first, as a share of all that there could be, and
            the items of each over those of an even spread.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes()
        axes.axhline(1, color=GREY, linewidth=1, linestyle="--", label="even")
        for (name, (share, size)), colour in zip(levels.items(), COLOURS, strict=False):
            axes.plot(100 * share, size, drawstyle="steps-pre", color=colour, label=name)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # as text, not as the formula 10^1
        axes.set(
            xlabel="nodes, fullest first (%)", ylabel="items over an even share", xlim=(0, 101)
        )
        axes.legend()
        return _svg(figure)


def hits_over_k(
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    points: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> str:
    """Share of targets among the first K, a panel per candidate set.

    Args:
        lines: per candidate set the K and the share of the model.
        points: per candidate set and other scorer the share by K.
    """
    columns = len(lines)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(2.6 * columns, 4.5), 3.3))
        panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
        for panel, (candidates, (k, hits)) in zip(panels, lines.items(), strict=True):
            panel.plot(k, hits, color=WITH, linewidth=2, label="model")
            others = zip(points.get(candidates, {}).items(), COLOURS[1:], strict=False)
            for (scorer, values), colour in others:
                share = list(values.values())
                panel.plot(list(values), share, "o", markersize=4, color=colour, label=scorer)
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter("{x:g}")  # as text, not as the formula 10^1
            panel.set_ylim(0, 1.02)
            panel.set_title(candidates, fontsize=9)
            panel.set_xlabel("K")
        panels[0].set_ylabel("Hits@K")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4)
        figure.tight_layout()
        return _svg(figure)


def trade_off(
    groups: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    limits: Sequence[float],
) -> str:
    """Points by kind, later kinds over earlier ones.

    Args:
        groups: per name of a kind its points.
        x_label: of the axis to the right.
        y_label: of the axis upwards.
        limits: where vertical lines stand.
    """
    markers = (("o", GREY, 5), ("o", WITH, 5), ("s", BEST, 8), ("*", WITHOUT, 13), ("+", GREY, 10))
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(height=3.6)
        for limit in limits:
            axes.axvline(limit, color=GREY, linewidth=1, linestyle="--")
        for (name, points), (marker, colour, size) in zip(groups.items(), markers, strict=True):
            filled = "none" if marker == "s" else colour
            x, y = [one[0] for one in points], [one[1] for one in points]
            style = {"markersize": size, "markerfacecolor": filled, "linestyle": "none"}
            axes.plot(x, y, marker=marker, color=colour, label=name, **style)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)


def against(
    points: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    x_label: str,
    y_label: str,
) -> str:
    """What should be equal, with the line on which it would be.

    Args:
        points: per name [n] to the right and [n] upwards.
        x_label: of the axis to the right.
        y_label: of the axis upwards.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(width=4.6, height=3.6)
        for (name, (x, y)), colour in zip(points.items(), COLOURS, strict=False):
            axes.plot(x, y, "o", color=colour, markersize=5, label=name)
        axes.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle="--")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)
