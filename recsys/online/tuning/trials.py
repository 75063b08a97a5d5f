"""What was tried: kept in one file, from which a tuning that was killed goes on.

Changes are in percent of the funnel as it is. NaN stands for what is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.evaluation.paired import Interval
from recsys.online.tuning.config import TuningConfig

FILE = "tuning.json"
KIND = "tuning of a funnel"

Numbers = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """Parameters that were played.

    Attributes:
        parameters: their values.
        metrics: of the play.
        changes: of the metrics.
        predicted: changes of goal and constraints that were expected from earlier trials, before
            this one was played; empty where nobody expected any.
        offline: metrics of the replayed ledger under these parameters; empty without a ledger.
    """

    parameters: Numbers
    metrics: Numbers
    changes: Numbers
    predicted: Numbers = field(default_factory=dict)
    offline: Numbers = field(default_factory=dict)

    def goal(self, tuning: TuningConfig) -> float:
        """Change of the goal."""
        return self.changes[tuning.goal]

    def violations(self, tuning: TuningConfig) -> Numbers:
        """By constraint how far it is from being met; 0 or less where it is."""
        return {
            name: limits.violation(self.changes[name])
            for name, limits in tuning.constraints.items()
        }

    def is_defined(self, tuning: TuningConfig) -> bool:
        """Whether goal and constraints are numbers."""
        asked = (tuning.goal, *tuning.constraints)
        return all(math.isfinite(self.changes[name]) for name in asked)

    def is_feasible(self, tuning: TuningConfig) -> bool:
        """Whether every constraint is met."""
        return self.is_defined(tuning) and max(self.violations(tuning).values(), default=0) <= 0


@dataclass(frozen=True)
class Confirmation:
    """The choice against the funnel as it is, on other users.

    Attributes:
        users: that visited.
        visits: under each of the two.
        changes: of the metrics, with paired intervals.
    """

    users: int
    visits: int
    changes: dict[str, Interval]


@dataclass(frozen=True)
class Tuning:
    """What a tuning has found so far.

    Attributes:
        settings: it was asked with.
        now: the trial of the funnel as it is.
        trials: in their order.
        confirmation: of the choice, once all trials were played.
    """

    settings: Mapping[str, Any]
    now: Trial
    trials: tuple[Trial, ...] = ()
    confirmation: Confirmation | None = None


def read(folder: Path, settings: Mapping[str, Any]) -> Tuning | None:
    """What the tuning in a folder has found; None where nothing was played yet.

    Raises:
        ArtifactError: its file is damaged, or it was asked for something else.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    kept = read_json(path, KIND, ArtifactError, "delete its folder.")
    if kept["now"] is None:
        return None
    for name, wanted in settings.items():
        if kept["settings"].get(name) != wanted:
            raise ArtifactError(
                f"{folder} holds a tuning with another {name} ({kept['settings'].get(name)}, now "
                f"{wanted}); delete that folder, or give this tuning another out=."
            )
    now, *trials = (_trial(one) for one in [kept["now"], *kept["trials"]])
    return Tuning(settings, now, tuple(trials))


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Mark a folder as that of a tuning, before anything is played."""
    write_json(folder / FILE, KIND, {"settings": settings, "now": None})


def write(folder: Path, found: Tuning, tuning: TuningConfig) -> None:
    """Replace the file of a tuning."""
    write_json(folder / FILE, KIND, as_json(found, tuning))


def as_json(found: Tuning, tuning: TuningConfig) -> dict[str, Any]:
    """All of it, the choice, and the Pareto front by numbers of trials from 1.

    What is not defined is null.
    """
    numbers = {id(one): number for number, one in enumerate(found.trials, 1)}
    best = choose(found.trials, tuning)
    plain: dict[str, Any] = _plain(asdict(found))
    return plain | {
        "chosen": None if best is None else numbers[id(best)],
        "pareto_front": [numbers[id(one)] for one in pareto_front(found.trials, tuning)],
    }


def choose(trials: Sequence[Trial], tuning: TuningConfig) -> Trial | None:
    """The highest goal of what meets the constraints, else what violates them least.

    None where no trial is defined.
    """
    defined = [one for one in trials if one.is_defined(tuning)]

    def merit(one: Trial) -> tuple[float, float]:
        beyond = sum(max(by, 0.0) for by in one.violations(tuning).values())
        return -beyond, one.goal(tuning)

    return max(defined, key=merit, default=None)


def pareto_front(trials: Sequence[Trial], tuning: TuningConfig) -> list[Trial]:
    """Trials that no other beats in goal and all constrained metrics, the highest goal first."""

    def merits(one: Trial) -> tuple[float, ...]:
        limits = tuning.constraints.items()
        return one.goal(tuning), *(of.sign * one.changes[name] for name, of in limits)

    defined = {id(one): merits(one) for one in trials if one.is_defined(tuning)}

    def is_beaten(mine: tuple[float, ...]) -> bool:
        return any(
            other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
            for other in defined.values()
        )

    front = [one for one in trials if id(one) in defined and not is_beaten(defined[id(one)])]
    return sorted(front, key=lambda one: -one.goal(tuning))


def _trial(content: Mapping[str, Any]) -> Trial:
    def numbers(name: str) -> Numbers:
        return {key: math.nan if one is None else one for key, one in content[name].items()}

    names = ("parameters", "metrics", "changes", "predicted", "offline")
    return Trial(**{name: numbers(name) for name in names})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
