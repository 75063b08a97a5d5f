"""The adjuster: a light model that predicts the fresh score of a cached candidate (Smart Cache §3).

Per task it is a line through the stale scores, and boosted trees of what has happened since. Both
grow with the stale score, so that of two candidates that differ in nothing else the order stays.

Legend: n cached candidates, K tasks, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.json_files import read_json, write_json
from recsys.serving.funnel.boosting import lightgbm
from recsys.serving.funnel.cache.rescore import FEATURES, Cached

_KIND = "adjuster of a funnel's cache"
_MEND = "give what `recsys funnel adjuster` wrote"
#: Of probabilities: nearer to 0 and 1 their logits are not told apart.
_LEAST = 1e-6
#: Of an intercept and a slope.
_BOUNDS = [(None, None), (0, None)]


@dataclass(frozen=True, eq=False)
class Line:
    """What of a task's fresh score follows from the stale one alone.

    Attributes:
        probability: whether it is of logits, of a task that is a probability; else of the scores.
        intercept: at a stale score, or logit, of 0.
        slope: at least 0.
    """

    probability: bool
    intercept: float
    slope: float

    @classmethod
    def fit(cls, stale: NDArray[np.floating], fresh: NDArray[np.floating]) -> Line:
        """Of scores [n]; those that all lie from 0 to 1 are probabilities.

        By least squares, or, of probabilities, by the least cross-entropy: the mean of what it says
        is that of the fresh scores.
        """
        both = np.stack([stale, fresh]).astype(np.float64)
        probability = bool(((both >= 0) & (both <= 1)).all())
        then, now = both
        if probability:
            intercept, slope = _logistic(_logits(then), now)
            return cls(True, intercept, slope)
        centred = then - then.mean()
        spread = float(centred @ centred)
        slope = max(float(centred @ now) / spread, 0.0) if spread else 0.0
        return cls(False, float(now.mean() - slope * then.mean()), slope)

    def of(self, stale: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n] what trees begin with."""
        return self.intercept + self.slope * self.input(stale)

    def input(self, stale: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n] the stale score as trees take it."""
        wide = stale.astype(np.float64)
        return _logits(wide) if self.probability else wide

    def score(self, raw: NDArray[np.floating]) -> NDArray[np.floating]:
        """[n] the score of what trees end with."""
        return expit(raw) if self.probability else raw


@dataclass(frozen=True, eq=False)
class Adjuster:
    """Predicts fresh scores.

    Attributes:
        tasks: K names, in the order of the scores.
        lines: [K].
        trees: [K] LightGBM's; None for a task that keeps its stale scores.
    """

    tasks: tuple[str, ...]
    lines: Sequence[Line]
    trees: Sequence[Any]

    def __call__(self, cached: Cached) -> NDArray[np.floating]:
        """[n, K], by one thread."""
        found = cached.scores.astype(np.float64)
        if not len(found):
            return found
        for task, (line, trees) in enumerate(zip(self.lines, self.trees, strict=True)):
            if trees is not None:
                stale = cached.scores[:, task]
                rows = inputs(line, stale, cached.features)
                raw = trees.predict(rows, raw_score=True, num_threads=1)
                found[:, task] = line.score(raw + line.of(stale))
        return found

    def save(self, path: Path) -> None:
        """Write it into a file."""
        lines = [vars(line) for line in self.lines]
        trees = [None if one is None else one.model_to_string() for one in self.trees]
        content = {"features": FEATURES, "tasks": self.tasks, "lines": lines, "trees": trees}
        write_json(path, _KIND, content)


def inputs(
    line: Line, stale: NDArray[np.floating], features: NDArray[np.floating]
) -> NDArray[np.float64]:
    """[n, 1 + F] what the trees of a task look at, the stale scores [n] first."""
    return np.concatenate([line.input(stale)[:, None], features], axis=1)


def load_adjuster(path: Path, tasks: Sequence[str]) -> Adjuster:
    """The adjuster of a file, for a funnel that predicts some tasks.

    Raises:
        ArtifactError: it is none, damaged, or looks at other features.
        ConfigError: it is of other tasks.
        InstallationError: there is no LightGBM.
    """
    found = read_adjuster(path)
    if found["features"] != list(FEATURES):
        raise ArtifactError(
            f"{path} looks at {', '.join(found['features'])}, and this release tells an adjuster "
            f"of {', '.join(FEATURES)}; train it again with `recsys funnel adjuster`."
        )
    if found["tasks"] != list(tasks):
        raise ConfigError(
            f"funnel.cache.adjuster={path} adjusts {', '.join(found['tasks'])}, and the funnel "
            f"predicts {', '.join(tasks)}; train one from a ledger of this funnel."
        )
    booster = lightgbm().Booster
    trees = [None if text is None else booster(model_str=text) for text in found["trees"]]
    return Adjuster(tuple(tasks), [Line(**one) for one in found["lines"]], trees)


def read_adjuster(path: Path) -> dict[str, Any]:
    """What a file of an adjuster says.

    Raises:
        ArtifactError: it is none, or damaged.
    """
    return read_json(path, _KIND, ArtifactError, _MEND)


def _logits(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probability, _LEAST, 1 - _LEAST)
    found: NDArray[np.float64] = np.log(inside) - np.log1p(-inside)
    return found


def _logistic(logit: NDArray[np.float64], label: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept, and slope of at least 0, of the least cross-entropy; logits and labels are [n]."""

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raw = line[0] + line[1] * logit
        error = expit(raw) - label
        value = float((np.logaddexp(0, raw) - label * raw).mean())
        return value, np.array([error.mean(), (error * logit).mean()])

    found = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=_BOUNDS, tol=1e-12)
    return float(found.x[0]), float(found.x[1])
