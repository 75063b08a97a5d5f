"""The plot of `recsys bench convergence`: a metric over steps and over seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recsys.reports.figures import COLOURS, GREY, STYLE

_AXES = ("steps", "CPU seconds", "wall seconds")


def save_figure(
    curves: Mapping[str, NDArray[np.float64]], metric: str, target: float, path: Path
) -> None:
    """Write one panel over steps, one over CPU seconds and one over wall seconds.

    Args:
        curves: per name [S, P, 4] of S seeds and P points: step, CPU and wall seconds, value.
        metric: its name.
        target: a horizontal line.
        path: of the PNG.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.0), dpi=110)
        panels = figure.subplots(1, len(_AXES), sharey=True)
        for axis, (panel, label) in enumerate(zip(panels, _AXES, strict=True)):
            for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
                _draw(panel, curve, axis, name, colour)
            panel.axhline(target, color=GREY, linestyle="--", linewidth=0.9)
            panel.set_xlabel(label)
            panel.set_xlim(left=0)
        values = np.concatenate([curve[:, :, 3].ravel() for curve in curves.values()])
        panels[0].set_ylim(*_limits(values, target))
        panels[0].set_ylabel(metric)
        panels[0].legend(loc="best")
        figure.tight_layout()
        figure.savefig(path)


def _draw(panel: Axes, curve: NDArray[np.float64], axis: int, name: str, colour: str) -> None:
    """The mean over seeds, and from the lowest to the highest of them."""
    places, values = curve[:, :, axis].mean(0), curve[:, :, 3]
    panel.fill_between(places, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
    panel.plot(places, values.mean(0), color=colour, linewidth=1.6, label=name)


def _limits(values: NDArray[np.float64], target: float) -> tuple[float, float]:
    """Of the axis: the first few points are far away and would flatten all others."""
    reach = float(np.quantile(np.abs(values - target), 0.85))
    low, high = max(values.min(), target - reach), min(values.max(), target + reach)
    return low - 0.05 * reach, high + 0.05 * reach
