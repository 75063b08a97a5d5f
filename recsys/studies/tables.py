"""Tables of numbers over seeds as text: their cells, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from recsys.core.console import UNDEFINED, visible
from recsys.studies.spread import Spread

#: Headings, then a row each.
Rows = list[list[str]]


def table(lines: Iterable[Sequence[tuple[str, str]]]) -> Rows:
    """Rows of lines that all have the same headings, each beside its cell."""
    lines = list(lines)
    headings = [[heading for heading, _ in line] for line in lines[:1]]
    return headings + [[cell for _, cell in line] for line in lines]


def markdown(rows: Rows) -> str:
    """A table of a page; all but the first column to the right, and every cell on its line."""
    rows = [[visible(cell).replace("|", r"\|") for cell in row] for row in rows]
    lines = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number_cell(value: float, form: str) -> str:
    """A number that may not be defined."""
    return f"{value:{form}}" if math.isfinite(value) else UNDEFINED


def setting_cell(value: Any, digits: int = 4) -> str:
    """A value that somebody chose: all of it, where it is no fraction."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def seeds_cell(seeds: Sequence[int], diverged: Sequence[int] = ()) -> str:
    """The seeds, and those that diverged; none of what is not trained."""
    return ", ".join([*map(str, seeds), *(f"{seed} diverged" for seed in diverged)]) or UNDEFINED


def spread_cell(spread: Spread | None, form: str, scale: float = 1) -> str:
    """Mean ± standard deviation, with one seed its value."""
    if spread is None:
        return UNDEFINED
    text = number_cell(scale * spread.mean, form)
    return text if spread.sd is None else f"{text} ± {scale * spread.sd:{form.lstrip('+')}}"


def measured_cell(spread: Spread | None, form: str) -> str:
    """:func:`spread_cell`, with one seed half its interval in brackets."""
    text = spread_cell(spread, form)
    if spread is None or spread.sd is not None:
        return text
    [one] = spread.by_seed.values()
    half = (one.high - one.low) / 2
    return text if math.isnan(half) else f"{text} [{half:{form}}]"


def range_cell(spread: Spread | None, form: str) -> str:
    """The smallest and the largest value of several seeds."""
    if spread is None or spread.sd is None:
        return UNDEFINED
    return f"{spread.low:{form}} to {spread.high:{form}}"


def interval_cell(spread: Spread | None, seed: int, form: str) -> str:
    """The bootstrap interval of one seed."""
    interval = spread.by_seed.get(seed) if spread is not None else None
    if interval is None or not math.isfinite(interval.low):
        return UNDEFINED
    return f"[{interval.low:{form}}, {interval.high:{form}}]"
