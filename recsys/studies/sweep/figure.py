"""Parallel coordinates: a line per trial through its parameters to the value it reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from recsys.reports.figures import STYLE
from recsys.studies.sweep.file import SweepFile
from recsys.studies.sweep.trials import Trial, TrialState
from recsys.studies.tables import setting_cell

_COLOURS = "viridis_r"
#: From this ratio of the largest to the smallest value on, an axis is logarithmic.
_WIDE = 20
_TICKS = 5
#: Of a tick's label, where values lie so close together that fewer would not tell them apart.
_MOST_DIGITS = 9
#: An axis of fewer integers has a tick for each.
_FEW = 12


@dataclass(frozen=True)
class Axis:
    """A vertical axis; places on it go from 0 at the bottom to 1.

    Attributes:
        name: what stands above it.
        choices: its values where they are no numbers, or few, from bottom to top.
        low: the number at the bottom.
        high: the number at the top.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, name: str, values: Sequence[Any], choices: Sequence[Any] = ()) -> Axis:
        """The axis of these values; ``choices`` are those a parameter may have."""
        if choices:
            numbers = all(_is_number(one) for one in choices)
            return cls(name, tuple(sorted(choices) if numbers else choices))
        return cls(name, (), min(values), max(values))

    @property
    def is_logarithmic(self) -> bool:
        """Whether it spans orders of magnitude."""
        return self.low > 0 and self.high >= _WIDE * self.low

    def place(self, value: Any) -> float:
        """Where a value lies."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = self.low, self.high, value
        if self.is_logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels."""
        if self.choices:
            return [(self.place(one), setting_cell(one)) for one in self.choices]
        if self.low == self.high:
            return [(0.5, setting_cell(self.low))]
        space = np.geomspace if self.is_logarithmic else np.linspace
        values = [
            float(one) for one in space(self.low, self.high, _TICKS).clip(self.low, self.high)
        ]
        digits = 2 if self.is_logarithmic else 4
        while len({setting_cell(one, digits) for one in values}) < _TICKS and digits < _MOST_DIGITS:
            digits += 1
        return [(self.place(one), setting_cell(one, digits)) for one in values]


def save_figure(file: SweepFile, trials: Sequence[Trial], path: Path) -> None:
    """A line per trial with a value, darker the better; the best is thick, stopped ones dashed."""
    shown = [trial for trial in trials if trial.is_measured]
    values = [file.best(trial.history) for trial in shown]
    axes_of = [_parameter_axis(file, name, shown) for name in file.searched]
    axes_of.append(Axis.of(file.metric, values))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.8 + 1.55 * len(axes_of), 3.9), dpi=150)
        axes = figure.subplots()
        _draw_axes(axes, axes_of)
        shades = Normalize(min(values), max(values))
        colours = matplotlib.colormaps[_COLOURS if file.highest else _COLOURS.removesuffix("_r")]
        best = file.best(values)
        for trial, value in sorted(zip(shown, values, strict=True), key=lambda one: one[1] == best):
            points = [*(trial.parameters[name] for name in file.searched), value]
            axes.plot(
                range(len(axes_of)),
                [axis.place(point) for axis, point in zip(axes_of, points, strict=True)],
                color=colours(shades(value)),
                linewidth=2.6 if value == best else 1.1,
                linestyle="--" if trial.state is TrialState.STOPPED else "-",
                alpha=1.0 if value == best else 0.75,
            )
        if any(trial.state is TrialState.STOPPED for trial in shown):
            axes.set_xlabel(f"dashed: {TrialState.STOPPED}", fontsize=8, loc="left")
        figure.savefig(path, format="png", bbox_inches="tight")


def _parameter_axis(file: SweepFile, name: str, trials: Sequence[Trial]) -> Axis:
    values = [trial.parameters[name] for trial in trials]
    choices = file.parameters[name].get("values", ())
    if all(isinstance(value, int) for value in values) and max(values) - min(values) < _FEW:
        choices = choices or range(min(values), max(values) + 1)
    return Axis.of(name, values, choices)


def _draw_axes(axes: Axes, axes_of: Sequence[Axis]) -> None:
    for position, axis in enumerate(axes_of):
        axes.axvline(position, color="#9aa0a8", linewidth=0.8)
        for place, label in axis.ticks():
            axes.annotate(
                label,
                (position, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
                zorder=3,
            )
    axes.set_xticks(range(len(axes_of)), [_heading(axis.name) for axis in axes_of], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(-0.1, len(axes_of) - 0.6)
    axes.spines[:].set_visible(False)


def _heading(name: str) -> str:
    """A dotted name on several lines."""
    return name.replace(".", ".\n")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
