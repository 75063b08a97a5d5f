"""Says at an open of the app whether a list is worth making in advance (Smart Cache §4).

Legend: n opens, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.json_files import read_json, write_json
from recsys.serving.funnel.boosting import lightgbm
from recsys.serving.funnel.cache.config import PrefetchConfig
from recsys.serving.funnel.prefetch.habits import FEATURES

_KIND = "prefetcher of a funnel"
_MEND = "give what `recsys funnel prefetcher` wrote"

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Prefetcher:
    """How likely a visit is, and how long it would wait.

    Attributes:
        visit: LightGBM's, of the logit of a visit.
        wait: LightGBM's, of the logarithm of the wait in ms; None where no wait was known.
        names: of devices and networks by their number, by the features that are told by number.
    """

    visit: Any
    wait: Any | None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def number(self, feature: str, name: str | None) -> float:
        """Of a device or network; NaN for one that was unknown when it was trained."""
        known = self.names.get(feature, ())
        return float(known.index(name)) if name in known else float("nan")

    def visit_probability(self, features: NDArray[np.floating]) -> Doubles:
        """[n] of features [n, F], by one thread."""
        found: Doubles = expit(self.visit.predict(features, raw_score=True, num_threads=1))
        return found

    def wait_ms(self, features: NDArray[np.floating]) -> Doubles:
        """[n] of features [n, F], by one thread."""
        assert self.wait is not None, "no wait was known"
        found: Doubles = np.exp(self.wait.predict(features, num_threads=1))
        return found

    def chosen(self, features: NDArray[np.floating], config: PrefetchConfig) -> NDArray[np.bool_]:
        """[n] for whom a list is made: p(visit) > T2, and wait > T3 where that is above 0."""
        if not len(features):
            return np.zeros(0, np.bool_)
        chosen: NDArray[np.bool_] = self.visit_probability(features) > config.visit
        if config.latency_ms > 0:
            chosen &= self.wait_ms(features) > config.latency_ms
        return chosen

    def save(self, path: Path) -> None:
        """Write it into a file."""
        given = ((name, getattr(self, name)) for name in _TREES)
        trees = {name: None if one is None else one.model_to_string() for name, one in given}
        write_json(path, _KIND, {"features": FEATURES, "names": dict(self.names), **trees})


def load_prefetcher(config: PrefetchConfig) -> Prefetcher:
    """That of a funnel's file.

    Raises:
        ArtifactError: it is none, damaged, or looks at other features.
        ConfigError: it knows nothing of waits, and the funnel asks for that.
        InstallationError: there is no LightGBM.
    """
    path = Path(str(config.models))
    found = read_prefetcher(path)
    if found["features"] != list(FEATURES) or "names" not in found:
        raise ArtifactError(
            f"{path} looks at {', '.join(found['features'])}, and this release tells a prefetcher "
            f"of {', '.join(FEATURES)}, devices and networks by name; train it again with `recsys "
            "funnel prefetcher`."
        )
    if found["wait"] is None and config.latency_ms > 0:
        raise ConfigError(
            f"{path} cannot say how long a user would wait, for no wait was known where it was "
            f"trained, and cache.prefetch.latency_ms={config.latency_ms:g} asks for that; give "
            "cache.prefetch.latency_ms=0, by which the probability of a visit decides alone, or "
            "train it where waits are known (simulator.world.latency)."
        )
    booster = lightgbm().Booster
    visit, wait = (
        None if found[name] is None else booster(model_str=found[name]) for name in _TREES
    )
    return Prefetcher(visit, wait, found["names"])


_TREES = ("visit", "wait")


def read_prefetcher(path: Path) -> dict[str, Any]:
    """What a file of a prefetcher says.

    Raises:
        ArtifactError: it is none, or damaged.
    """
    return read_json(path, _KIND, ArtifactError, _MEND)
