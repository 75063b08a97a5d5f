"""What the scores of cached candidates are worth now.

Legend: n cached candidates, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

#: What is told of a cached candidate beside its scores: hours since it was scored, age of the item
#: in hours, its place in the user's last list (0 for none), the logarithms of its counters now
#: (1 + engagements of late, affinity) and how much they have grown since.
FEATURES = (
    "gap_hours",
    "age_hours",
    "place",
    "engagements",
    "affinity",
    "engagements_grown",
    "affinity_grown",
)


@dataclass(frozen=True, eq=False)
class Cached:
    """Candidates of requests that were scored before.

    Attributes:
        at: [n] their places among the candidates, ascending.
        scores: [n, K] as they were.
        features: [n, F] of :data:`FEATURES`.
    """

    at: NDArray[np.int64]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]

    def only(self, chosen: NDArray[np.bool_]) -> Cached:
        """Some of them."""
        return Cached(self.at[chosen], self.scores[chosen], self.features[chosen])

    @property
    def gap_hours(self) -> NDArray[np.float32]:
        """[n] since they were scored."""
        return self.features[:, FEATURES.index("gap_hours")]


class Rescore(Protocol):
    """Predicts the fresh scores."""

    def __call__(self, cached: Cached) -> NDArray[np.floating]:
        """[n, K]."""
        ...


def stale(cached: Cached) -> NDArray[np.floating]:
    """[n, K] as they were."""
    return cached.scores


@dataclass(frozen=True)
class Decay:
    """Less and less of them, linearly in the gap.

    Attributes:
        share: lost by ``hours``.
        hours: T1.
    """

    share: float
    hours: float

    def __call__(self, cached: Cached) -> NDArray[np.floating]:
        """[n, K] score * (1 - share * gap / hours)."""
        return cached.scores * (1 - self.share * cached.gap_hours / self.hours)[:, None]
