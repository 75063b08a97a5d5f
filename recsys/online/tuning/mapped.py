"""The next parameters by a map from changes of offline metrics to changes of online ones.

The map is learned from what was played so far, a search on it replays a ledger and plays nothing
(offline tuning of Instagram's Explore).

Legend: n trials, F offline metrics, M online metrics, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from scipy.stats.qmc import Sobol
from sklearn.linear_model import RidgeCV

from recsys.online.tuning.config import TuningConfig
from recsys.online.tuning.space import Space, Values
from recsys.online.tuning.trials import Numbers, Trial
from recsys.serving.funnel.config import FunnelConfig

Doubles = NDArray[np.float64]

#: Strengths of the ridge, the offline metrics scaled to a mean square of 1, to choose from.
_STRENGTHS = np.logspace(-1, 2, 10)
#: Trials before the first that is predicted.
LEAST = 2
#: Points that the search holds at a time, a power of two.
_POPULATION = 32
#: Of a point that is not feasible: more than any loss of one that is.
_INFEASIBLE = 1e9


class OfflineMap:
    """Changes of online metrics, linear in changes of offline metrics; no change means none.

    A ridge regression whose strength is chosen by leave-one-out.

    Args:
        trials: that were played, ``LEAST`` or more, with their offline metrics.
        now: offline metrics of the funnel as it is.
        names: M online metrics.
    """

    def __init__(self, trials: Sequence[Trial], now: Numbers, names: Sequence[str]) -> None:
        self._now, self._names = now, tuple(names)
        offline = np.stack([self._changes(one.offline) for one in trials])
        online = np.array([[one.changes[name] for name in names] for one in trials])
        spread = np.sqrt(np.square(offline).mean(axis=0))
        self._scale = np.where(spread > 0, spread, 1.0)
        self._ridge = RidgeCV(_STRENGTHS, fit_intercept=False, alpha_per_target=True)
        self._ridge.fit(offline / self._scale, online)

    def predict(self, offline: Mapping[str, float]) -> Numbers:
        """Changes of the online metrics, in percent."""
        changes = self._changes(offline)[None] / self._scale
        found = self._ridge.predict(changes).reshape(-1).tolist()
        return dict(zip(self._names, found, strict=True))

    def _changes(self, offline: Mapping[str, float]) -> Doubles:
        """[F] in percent; 0 where there is nothing to compare with."""
        values = np.array([offline[name] for name in self._now])
        now = np.array(list(self._now.values()))
        known = np.isfinite(values) & np.isfinite(now) & (now != 0)
        return np.where(known, 100 * (values - now) / np.where(known, now, 1), 0.0)


def drawn(space: Space, number: int, seed: int) -> Sequence[Values]:
    """So many parameters, spread evenly over their ranges (Sobol)."""
    power = max(number - 1, 0).bit_length()
    points = Sobol(len(space.parameters), rng=seed).random_base2(power)
    return space.at(points[:number])


def search(
    space: Space,
    offline: Callable[[FunnelConfig], Numbers],
    expected: OfflineMap,
    tuning: TuningConfig,
    evaluations: int,
    seed: int,
) -> Values:
    """The parameters of the highest goal that the map expects among those it expects feasible.

    By differential evolution (Storn and Price 1997); what is not feasible is compared by how far
    it is from being so.

    Args:
        space: the parameters.
        offline: metrics of a funnel, without playing it.
        expected: the map.
        tuning: goal and constraints.
        evaluations: replays, about.
        seed: of the search.
    """
    whole = np.array([one.whole for one in space.parameters])

    def loss(point: Doubles) -> float:
        values = _values(space, point)
        changes = expected.predict(offline(space.funnel_with(values)))
        limits = tuning.constraints.items()
        beyond = sum(max(of.violation(changes[name]), 0.0) for name, of in limits)
        return _INFEASIBLE + beyond if beyond > 0 else -changes[tuning.goal]

    found = differential_evolution(
        loss,
        [(one.low, one.high) for one in space.parameters],
        integrality=whole,
        init=_first_points(space, seed),
        maxiter=evaluations // _POPULATION - 1,
        tol=0,
        polish=False,
        rng=seed,
    )
    return _values(space, found.x)


def _first_points(space: Space, seed: int) -> Doubles:
    """[population, P]: the funnel as it is, and points spread evenly over the ranges."""
    others = drawn(space, _POPULATION - 1, seed)
    return np.array([list(values.values()) for values in (space.now, *others)], np.float64)


def _values(space: Space, point: Doubles) -> Values:
    of = zip(space.parameters, point.tolist(), strict=True)
    return {one.name: round(value) if one.whole else value for one, value in of}
