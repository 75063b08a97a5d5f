"""Folders of recurring trainings as cycles leave them, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.recurring.generations import (
    APPENDED,
    COMPARED,
    DATASET,
    EXPORTED,
    MEASURED,
    PUBLISHED,
    REFRESHED,
    REFUSED,
    SERVED,
    TRAINED,
    TRIED,
    Generation,
    Generations,
)

DAY = 86_400_000
START = 20_000 * DAY


def generation(number: int, **changed: Any) -> Generation:
    """A generation whose newest day is START and so many days more."""
    begin = START + number * DAY
    change = {"value": 0.1, "low": -0.3, "high": 0.5}
    done: dict[str, dict[str, Any]] = {
        APPENDED: {DATASET: str(number), "seconds": 1.0},
        TRAINED: {"report_from": begin, "report_until": begin + DAY, "seconds": 20.0},
        MEASURED: {"ne": 0.8 + number / 100, "change": change, "seconds": 4.0},
        COMPARED: {"cosine": 0.95, "seconds": 0.5},
        EXPORTED: {"seconds": 6.0},
        TRIED: {"seconds": 0.0},
        PUBLISHED: {"as_of": begin + DAY, "active_users": 1_790 + number, "seconds": 1.3},
    }
    if changed.get("state") == REFRESHED:
        published = done[TRAINED] | done[PUBLISHED] | {"published_users": 1_204}
        done = {APPENDED: done[APPENDED], PUBLISHED: published}
    for step, found in changed.pop("done", {}).items():
        done[step] |= found
    last = 4 if changed.get("state") == REFUSED else len(done)
    kept = {step: done[step] for step in list(done)[: changed.pop("steps", last)]}
    return Generation(number, done=kept, **{"state": SERVED, "base": number - 1 or None, **changed})


def folder_of(folder: Path, *several: Generation) -> Generations:
    """A folder with these generations, of which the last served one is current."""
    generations = Generations(folder)
    with generations.held():
        for one in several:
            generations.write(one)
            if one.state != REFRESHED:
                generations.run_dir(one).mkdir()
            if one.state == SERVED:
                generations.serve(one)
    return generations
