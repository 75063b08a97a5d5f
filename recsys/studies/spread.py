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
        mean: over the seeds.
        sd: standard deviation over them (n - 1); None with one.
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
        """None where a seed does not define the metric: the others' mean would be too good."""
        values = [one.value for one in by_seed.values()]
        if not values or not all(map(math.isfinite, values)):
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, min(values), max(values), by_seed)

    @property
    def first(self) -> Interval:
        """Of the smallest seed."""
        return self.by_seed[min(self.by_seed)]
