"""`recsys recur status`: what became of each generation, as a table and as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.core.console import UNDEFINED
from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.recurring.generations import (
    COMPARED,
    MEASURED,
    PUBLISHED,
    REFRESHED,
    SERVED,
    STEPS,
    TRAINED,
    WITHDRAWN,
    Generation,
    Generations,
)
from recsys.reports.figures import FEW_POINTS, by_day
from recsys.reports.page import Section, write_own_page

MADE_BY = "recsys recur status"
_HEADINGS = ("generation", "state", "newest day", "NE", "change, %", "cosine", "embeddings as of")
_COST = "Seconds of each step"


@dataclass(frozen=True)
class Row:
    """A generation as it is shown; NaN and None where a number is not there.

    Attributes:
        generation: what is known of it.
        is_current: whether it is served now.
        day: begin of its newest day, ms.
        ne: mean NE on that day.
        cosine: mean cosine of its user embeddings with those that were served before.
        age: hours from the newest day of what was served after its cycle, of which the embeddings
            are, to its own: one that is refused leaves the old ones to grow older.
    """

    generation: Generation
    is_current: bool
    day: int | None
    ne: float
    cosine: float
    age: float

    @property
    def seconds(self) -> dict[str, float]:
        """Of each step."""
        done = self.generation.done
        return {step: done[step]["seconds"] if step in done else math.nan for step in STEPS}


def rows(generations: Generations) -> list[Row]:
    """A row per generation, the oldest first."""
    current, found = generations.current(), []
    served: int | None = None
    for one in generations.all():
        done = one.done
        day, age = one.newest_day, math.nan
        if day is not None and one.state in (SERVED, WITHDRAWN, REFRESHED):
            served = day[1]
        if day is not None and served is not None:
            age = (day[1] - served) / MILLISECONDS_PER_HOUR
        row = Row(
            generation=one,
            is_current=current is not None and one.number == current.number,
            day=None if day is None else day[0],
            ne=done.get(MEASURED, {}).get("ne", math.nan),
            cosine=done.get(COMPARED, {}).get("cosine", math.nan),
            age=age,
        )
        found.append(row)
    return found


def tables(found: Sequence[Row]) -> dict[str, list[list[str]]]:
    """By title, headings and rows, for the terminal and the page."""
    generations = [[*_HEADINGS, "age, h", "users published", "seconds"], *map(_cells, found)]
    cost = [["generation", *STEPS]]
    for row in found:
        cost.append([str(row.generation.number), *(_shown(one, 1) for one in row.seconds.values())])
    return {"Generations": generations, _COST: cost}


def sentences(found: Sequence[Row]) -> list[str]:
    """Which one is served, as of when its embeddings are, and why later ones were refused."""
    said = []
    current = next((row for row in found if row.is_current), None)
    if current is None:
        said.append("No generation is served yet.")
    else:
        number = current.generation.number
        until = to_text(current.generation.done[TRAINED]["report_until"])
        said.append(f"Generation {number} is served, of the log until {until}.")
        refreshed = [row.generation for row in found if _refreshes(row, number)]
        if refreshed:
            as_of = to_text(refreshed[-1].done[PUBLISHED]["as_of"])
            said.append(f"Its embeddings were published anew as of {as_of}.")
    served = 0 if current is None else current.generation.number
    later = [row for row in found if row.generation.number > served]
    return said + [f"{name}: {why}." for name, why in _refused(later).items()]


def write_page(folder: Path, found: Sequence[Row], path: Path) -> None:
    """Write the page, which needs nothing beside itself."""
    shown = tables(found)
    current = next((row for row in found if row.is_current), None)
    states = Counter(row.generation.state for row in found)
    trained = len(found) - states[REFRESHED]
    tiles = [_tile("generations", str(trained)), _tile("served", str(states[SERVED]))]
    if current is not None:
        total = sum(one for one in current.seconds.values() if not math.isnan(one))
        tiles = [
            _tile("served now", str(current.generation.number), accent=True),
            _tile("its mean NE", _shown(current.ne, 4)),
            _tile("seconds of its cycle", f"{total:,.0f}"),
            *tiles,
        ]
    write_own_page(
        path,
        MADE_BY,
        title="A recurring training",
        subtitle=str(folder),
        headline=sentences(found),
        tiles=tiles,
        sections=[
            *_figures(found),
            *(Section(title, rows=lines) for title, lines in shown.items()),
            *([Section("Refused", facts=refused)] if (refused := _refused(found)) else []),
        ],
    )


def _figures(found: Sequence[Row]) -> list[Section]:
    dated = [row for row in found if row.day is not None]
    if len(dated) < FEW_POINTS:
        return []
    days = [row.day for row in dated if row.day is not None]
    lines = {
        "NE of the newest day": {"mean NE": [row.ne for row in dated]},
        "Age of what is served": {"hours": [row.age for row in dated]},
        "Cosine with the embeddings served before": {"mean cosine": [row.cosine for row in dated]},
        _COST: {step: [row.seconds[step] for row in dated] for step in STEPS},
    }
    return [
        Section(title, figure=by_day(days, values))
        for title, values in lines.items()
        if any(not math.isnan(one) for line in values.values() for one in line)
    ]


def _refused(found: Sequence[Row]) -> dict[str, str]:
    """Why, by the generation."""
    return {
        f"Generation {row.generation.number} was refused": row.generation.why
        for row in found
        if row.generation.why is not None
    }


def _refreshes(row: Row, number: int) -> bool:
    """Whether it is a publication of the embeddings of a generation by a later cycle."""
    return row.generation.state == REFRESHED and row.generation.base == number


def _cells(row: Row) -> list[str]:
    one, done = row.generation, row.generation.done
    published = done.get(PUBLISHED)
    return [
        str(one.number),
        _state(row),
        "" if row.day is None else to_text(row.day)[:10],
        _shown(row.ne, 4),
        _change(done.get(MEASURED, {}).get("change")),
        _shown(row.cosine, 3),
        "" if published is None else to_text(published["as_of"])[:16],
        _shown(row.age, 1),
        "" if published is None else _users(published),
        f"{sum(seconds for seconds in row.seconds.values() if not math.isnan(seconds)):,.0f}",
    ]


def _state(row: Row) -> str:
    if row.generation.state == REFRESHED:
        return f"refreshed {row.generation.base}"
    return "is served" if row.is_current else row.generation.state


def _users(published: dict[str, Any]) -> str:
    written, active = published.get("published_users"), published["active_users"]
    return f"{active:,}" if written is None else f"{written:,} of {active:,}"


def _change(change: dict[str, Any] | None) -> str:
    if change is None:
        return ""
    values = [UNDEFINED if one is None else f"{one:+.2f}" for one in change.values()]
    return f"{values[0]} [{values[1]}, {values[2]}]"


def _shown(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _tile(name: str, value: str, accent: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "accent": accent}
