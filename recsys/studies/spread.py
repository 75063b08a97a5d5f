"""One metric over seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from recsys.evaluation.paired import Interval


@dataclass(frozen=True)
class Spread:
    """One metric over seeds.

    Attributes:
        mean: over the seeds for which it is defined.
        sd: standard deviation over them (n - 1); None with fewer than two.
        low: smallest value.
        high: largest value.
        by_seed: the value of each seed, with its bootstrap interval where there is one.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    by_seed: dict[int, Interval]

    @classmethod
    def of(cls, by_seed: dict[int, Interval]) -> Spread | None:
        """None where no seed defines the metric."""
        values = [one.value for one in by_seed.values() if math.isfinite(one.value)]
        if not values:
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, min(values), max(values), by_seed)

    @property
    def first(self) -> Interval:
        """Of the smallest seed."""
        return self.by_seed[min(self.by_seed)]

    @property
    def defined(self) -> list[Interval]:
        """Of the seeds for which it is defined."""
        return [one for one in self.by_seed.values() if math.isfinite(one.value)]
