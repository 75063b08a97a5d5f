"""The plot of a study: by task and variant the change of each seed, with bootstrap intervals."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys.reports.figures import GREY, STYLE
from recsys.studies.comparison import Comparison

_PANELS = {"": "all rows", "seen_items": "items seen in training", "unseen_items": "unseen items"}
#: Space between the lines of two variants, as a share of the space between two tasks.
_SPACING = 0.8
_MARGIN = 0.08


def save_figure(comparison: Comparison, path: Path) -> None:
    """One panel per group of rows: a bar for the first seed's bootstrap interval, a small dot per
    seed, a large one for their mean.
    """
    groups = [group for group in comparison.groups if _has_values(comparison, group)]
    lines = len(comparison.tasks) * len(comparison.compared)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 3.6 * len(groups), 1.6 + 0.2 * lines), dpi=150)
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            _draw(axes, comparison, group)
        panels[0].set_yticks(range(len(comparison.tasks)), comparison.tasks)
        panels[0].set_ylim(len(comparison.tasks) - 0.5, -0.5)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.supxlabel(f"change of NE (MSE) against {comparison.baseline}, %", fontsize=9.5)
        figure.legend(handles, labels, loc="upper center", ncols=4, bbox_to_anchor=(0.5, 0))
        figure.tight_layout()
        figure.savefig(path, bbox_inches="tight")


def _draw(axes: Axes, comparison: Comparison, group: str) -> None:
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    ends: list[float] = [0.0]
    for number, name in enumerate(comparison.compared):
        colour = f"C{number % 10}"
        offset = _SPACING * ((number + 0.5) / len(comparison.compared) - 0.5)
        for position, task in enumerate(comparison.tasks):
            change = comparison.change(name, group, task)
            if change is None:
                continue
            line = position + offset
            first = change.by_seed[min(change.by_seed)]
            axes.plot([first.low, first.high], [line] * 2, color=colour, linewidth=4, alpha=0.25)
            seeds = [one.value for one in change.by_seed.values()]
            axes.plot(seeds, [line] * len(seeds), "o", color=colour, markersize=2.5, alpha=0.6)
            label = name if position == 0 else None
            axes.plot(change.mean, line, "o", color=colour, markersize=5, label=label)
            # intervals of rare tasks may leave the panel, or the others could not be seen
            shown = seeds if comparison.is_rare(group, task) else [*seeds, first.low, first.high]
            ends += [value for value in shown if math.isfinite(value)]
    margin = _MARGIN * (max(ends) - min(ends) or 1)
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.set_title(f"{_PANELS[group]} ({comparison.groups[group].rows:,})", fontsize=9.5)


def _has_values(comparison: Comparison, group: str) -> bool:
    return any(
        comparison.change(name, group, task)
        for name in comparison.compared
        for task in comparison.tasks
    )
