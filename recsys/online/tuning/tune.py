"""Tunes numbers of a funnel's configuration in a played world."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recsys.core.composition import save, to_yaml
from recsys.core.console import message_console
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_begun, locked_folder, replaced_folder
from recsys.online.compare import compared
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.metrics import DEPTH, WAITS, UserSums
from recsys.online.tuning import trials as kept
from recsys.online.tuning.arena import Arena
from recsys.online.tuning.bayesian import propose
from recsys.online.tuning.config import GRID, OFFLINE, TuneConfig
from recsys.online.tuning.mapped import LEAST, OfflineMap, drawn, search
from recsys.online.tuning.points import POINTS, operating_points, write_points
from recsys.online.tuning.replayed import Replay, read_noted
from recsys.online.tuning.space import Space, Values
from recsys.online.tuning.trials import Confirmation, Numbers, Trial, Tuning, choose

#: The funnel of the choice, and what was noted of the funnel as it is.
FUNNEL, LEDGER = "funnel.yaml", "ledger"
#: May be otherwise when a tuning is gone on with.
_FREE = ("out", "trials", "bootstrap")


def tune(config: TuneConfig) -> Tuning:
    """Play trials until there are enough, and confirm the best one on other users.

    Every trial is kept in ``out`` once it was played; a tuning that was killed goes on from there.

    Raises:
        ConfigError: a parameter, metric or range cannot be meant, or ``out`` is somebody else's.
        ArtifactError: ``out`` holds a tuning that was asked for something else.
        DataError: there is no simulation, or a metric that is asked for is not defined.
    """
    folder = Path(config.out)
    check_begun(folder, [kept.FILE], "a tuning")
    tuner = _Tuner(config, folder)
    with locked_folder(folder):
        folder.mkdir(exist_ok=True)
        found = kept.read(folder, tuner.settings)
        if found is None:
            kept.begin(folder, tuner.settings)
            found = Tuning(tuner.settings, tuner.begin())
            kept.write(folder, found, config.tuning)
        while len(found.trials) < tuner.trials:
            found = replace(found, trials=(*found.trials, tuner.next(found)))
            kept.write(folder, found, config.tuning)
            _tell(found, config, tuner.trials)
        best = choose(found.trials, config.tuning)
        if best is None:
            raise DataError(
                f"no trial has a {config.tuning.goal} and constraints that are numbers; play more "
                "users= or days=."
            )
        found = replace(found, confirmation=tuner.confirm(best))
        kept.write(folder, found, config.tuning)
        save(tuner.space.funnel_with(best.parameters), folder / FUNNEL)
        points = operating_points(found, config.tuning)
        if points:
            write_points(folder / POINTS, {n: one.parameters for n, one in points.items()})
    return found


class _Tuner:
    """Plays the trials of a tuning, and says which comes next."""

    def __init__(self, config: TuneConfig, folder: Path) -> None:
        if config.way != GRID and config.drawn >= config.trials:
            raise ConfigError(
                f"drawn={config.drawn} of trials={config.trials} leave none that follows from what "
                "was found; give fewer drawn= or more trials=."
            )
        self._config, self._tuning = config, config.tuning
        self._asked = tuple(config.tuning.metrics)
        self._ledger = folder / LEDGER if config.way == OFFLINE else None
        self._funnel = config.funnel
        self.space = Space(config.funnel, config.tuning.parameters)
        if self._ledger is not None:
            self.space.check_replayed()
        self._grid = self.space.grid(config.levels) if config.way == GRID else None
        self.trials = config.trials if self._grid is None else len(self._grid)
        self._arena = Arena(config)
        for name in self._asked:
            _check_metric(name, self._arena.metrics)
        self._opened: Replay | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What a tuning that is gone on with was asked for too."""
        asked = {name: one for name, one in asdict(self._config).items() if name not in _FREE}
        return asked | {"funnel": to_yaml(self._funnel)}  # JSON has no numbers as keys

    def begin(self) -> Trial:
        """Play the funnel as it is, with a ledger where that is to be replayed."""
        noted = nullcontext() if self._ledger is None else replaced_folder(self._ledger)
        with noted as ledger:
            metrics = _metrics(self._arena.play(self._funnel, self._arena.tuned, ledger))
        for name in self._asked:
            if not math.isfinite(metrics[name]) or metrics[name] == 0:
                raise DataError(
                    f"{name} of the funnel as it is is {metrics[name]:g}, of which there is no "
                    "change in percent; play more users= or days=, or name another metric."
                )
        return Trial(self.space.now, metrics, _changes(metrics, metrics))

    def next(self, found: Tuning) -> Trial:
        """Play the parameters that follow from what was found."""
        known = [one for one in found.trials if one.is_defined(self._tuning)]
        if self._ledger is None:
            return self._played(self._values(found, known), found.now)
        replay = self._replay(self._ledger, found.now)
        expected = OfflineMap(known, replay.now, self._asked) if len(known) >= LEAST else None
        values = self._values(found, known, replay, expected)
        offline = replay.metrics(self.space.funnel_with(values))
        predicted = {} if expected is None else expected.predict(offline)
        return replace(self._played(values, found.now), offline=offline, predicted=predicted)

    def _values(
        self,
        found: Tuning,
        known: Sequence[Trial],
        replay: Replay | None = None,
        expected: OfflineMap | None = None,
    ) -> Values:
        """Of the next trial: drawn at first, then what is expected to be best."""
        number, seed = len(found.trials), self._config.seed
        if self._grid is not None:
            return self._grid[number]
        if number < self._config.drawn or (replay is not None and expected is None):
            return drawn(self.space, number + 1, seed)[number]
        if replay is None or expected is None:
            return propose(self.space, [found.now, *known], self._tuning, seed)
        evaluations, seed = self._config.evaluations, seed + number
        return search(self.space, replay.metrics, expected, self._tuning, evaluations, seed)

    def _played(self, values: Values, now: Trial) -> Trial:
        metrics = _metrics(self._arena.play(self.space.funnel_with(values), self._arena.tuned))
        return Trial(values, metrics, _changes(metrics, now.metrics))

    def confirm(self, best: Trial) -> Confirmation:
        """The choice against the funnel as it is, on users on whom it was not made."""
        funnels = (self.space.funnel_with(best.parameters), self._funnel)
        sums = [self._arena.play(funnel, self._arena.others) for funnel in funnels]
        found = compared(sums[0], sums[1], self._config.bootstrap)
        changes = {metric.name: metric.percent for metric in found.metrics}
        return Confirmation(found.users, found.visits, changes)

    def _replay(self, ledger: Path, now: Trial) -> Replay:
        if self._opened is None:
            world = self._arena.world
            self._opened = Replay(
                PlayedKnowledge(world, self._funnel.group),
                world.tasks,
                read_noted(ledger, self._config.requests),
                self._funnel,
                now.metrics[DEPTH],
                world.world.viewing.items,
            )
        return self._opened


def _check_metric(name: str, there: Sequence[str]) -> None:
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}."
        raise ConfigError(f"tuning: {name} is no metric of what is played; {hint}")


def _metrics(sums: UserSums) -> Numbers:
    """Of all users together."""
    whole = sums.sums.sum(axis=0)
    found = {}
    for name in sums.metrics:
        top, bottom = sums.parts(name)
        found[name] = float(whole[top] / whole[bottom]) if whole[bottom] else math.nan
    return found | {name: sums.quantile(level) for name, level in WAITS.items()}


def _changes(metrics: Numbers, now: Numbers) -> Numbers:
    """In percent of the funnel as it is; NaN where that is 0."""
    return {
        name: 100 * (value - now[name]) / now[name] if now[name] else math.nan
        for name, value in metrics.items()
    }


def _tell(found: Tuning, config: TuneConfig, trials: int) -> None:
    names = config.tuning.metrics
    changes = ", ".join(f"{name} {found.trials[-1].changes[name]:+.1f} %" for name in names)
    message_console().print(f"Trial {len(found.trials)} of {trials}: {changes}")
