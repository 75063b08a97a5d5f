"""What `recsys tune` takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING

from recsys.core.bounds import (
    Count,
    Days,
    Finite,
    Hours,
    Number,
    OneOf,
    OutPath,
    Seed,
    Settings,
)
from recsys.core.composition import load_part
from recsys.core.errors import ConfigError
from recsys.evaluation.paired import Bootstrap
from recsys.online.metrics import VALUE
from recsys.serving.funnel.config import FunnelConfig

#: The ways: every trial proposed by what was found online; by a map from replayed ledgers; all of
#: a grid.
ONLINE, OFFLINE, GRID = "online", "offline", "grid"

#: Where the parameters of operating points stand in a funnel.
CACHE = "cache."


@dataclass(frozen=True)
class Range(Settings):
    """Where the values of a parameter lie.

    Attributes:
        low: the smallest.
        high: the largest.
    """

    low: Finite = MISSING
    high: Finite = MISSING


@dataclass(frozen=True)
class Limits(Settings):
    """How far a metric may move from that of the funnel as it is, in percent of it.

    Attributes:
        at_most: largest change; null for any.
        at_least: smallest change, such as -2; null for any.
    """

    at_most: Finite | None = None
    at_least: Finite | None = None

    def violation(self, change: float) -> float:
        """By how many percent a change is beyond the nearer limit; below 0 it is within."""
        over = -float("inf") if self.at_most is None else change - self.at_most
        under = -float("inf") if self.at_least is None else self.at_least - change
        return max(over, under)

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, else -1."""
        return 1 if self.at_most is None else -1


@dataclass(frozen=True)
class TuningConfig(Settings):
    """What is tuned, and to what end; a file of the user's own may say it.

    Attributes:
        goal: metric of `recsys online` that is to become as high as can be, or
            ``<task>_per_session``.
        constraints: other metrics, and how far they may move.
        parameters: numbers of the funnel. What multiplies a term of ``value.expression`` is named
            by the term, such as ``p(liked)`` for ``1.0 * p(liked)``; others by their place in the
            file, such as ``sources.fresh.weight`` or ``rerank.at_most[0].share``.
        points: operating points by name: of the trials within these limits the one with the highest
            goal; where there are any, all parameters are of the funnel's cache.
    """

    goal: str = VALUE
    constraints: dict[str, Limits] = field(default_factory=dict)
    parameters: dict[str, Range] = field(default_factory=dict)
    points: dict[str, dict[str, Limits]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parameters without room, and constraints that say nothing."""
        super().__post_init__()
        if not self.parameters:
            raise ConfigError(
                "tuning.parameters: nothing is to be tuned; name numbers of the funnel, such as "
                "p(liked): {low: 0, high: 4}."
            )
        for name, one in self.parameters.items():
            if one.low >= one.high:
                raise ConfigError(
                    f"tuning.parameters: {name} goes from low={one.low:g} to high={one.high:g}; "
                    "low must be below high."
                )
        of_points = {f"points.{name}": limits for name, limits in self.points.items()}
        for place, by_metric in {"constraints": self.constraints, **of_points}.items():
            for name, limits in by_metric.items():
                if limits == Limits():
                    raise ConfigError(
                        f"tuning.{place}: {name} has no limit; give it at_most or at_least, in "
                        "percent of change."
                    )
        others = [name for name in self.parameters if not name.startswith(CACHE)]
        if self.points and others:
            raise ConfigError(
                f"tuning.points: an operating point is of the cache alone, and {others[0]} is "
                "tuned too; leave points out, or that."
            )

    @property
    def metrics(self) -> list[str]:
        """Goal, and what constraints and points are about, each once."""
        of_points = [name for limits in self.points.values() for name in limits]
        return list(dict.fromkeys([self.goal, *self.constraints, *of_points]))

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What a file of the user's own says.

        Raises:
            ConfigError: it cannot be read, or does not fit.
        """
        return load_part(path, cls)


@dataclass(frozen=True)
class TunedFunnel(FunnelConfig):
    """The funnel as it is; a file of the user's own may declare it."""

    @classmethod
    def read_file(cls, path: Path) -> dict[str, Any]:
        """What a file of the user's own says.

        Raises:
            ConfigError: it cannot be read, or does not fit.
        """
        return load_part(path, cls)


@dataclass(frozen=True)
class TuneConfig(Settings):
    """A tuning.

    Attributes:
        simulation: folder of a simulated log that is a world.
        out: folder of what is found; a tuning that was killed goes on there.
        funnel: that is tuned.
        tuning: what is tuned, and to what end.
        way: ``online``, every trial is proposed by a Gaussian process over those before it;
            ``offline``, by a map from offline metrics of a replayed ledger to online changes; or
            ``grid``, so many ``levels`` of every parameter with each other.
        trials: parameters that are played, beside the funnel as it is; of a grid it is all.
        levels: of a parameter in a grid, its ends among them.
        drawn: so many first ones are spread evenly over the ranges.
        requests: of the ledger that are replayed, at most.
        evaluations: replays to find the next trial on the map.
        users: the first so many are played; null for half of them.
        confirm_users: the next so many, on whom the choice is confirmed; null for as many.
        days: so many from the end of the log on.
        tick_minutes: the funnel answers the visits of a tick together, and learns between ticks.
        log_hours: the funnel is told of what the log has in the last so many hours.
        new_hours: an item counts as new up to this age.
        seed: of draws and proposals.
        bootstrap: intervals of the confirmation, over users.
    """

    simulation: str
    out: OutPath
    funnel: TunedFunnel
    tuning: TuningConfig
    way: Annotated[str, OneOf((ONLINE, OFFLINE, GRID))] = ONLINE
    trials: Count = 30
    levels: Annotated[int, Number(at_least=2, at_most=100)] = 3
    drawn: Count = 8
    requests: Count = 100
    evaluations: Annotated[int, Number(at_least=64, at_most=10**6)] = 500
    users: Count | None = None
    confirm_users: Count | None = None
    days: Days = 1.0
    tick_minutes: Annotated[float, Number(above=0, at_most=1440)] = 5.0
    log_hours: Hours = 96.0
    new_hours: Hours = 6.0
    seed: Seed = 0
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
