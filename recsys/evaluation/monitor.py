"""The metric that picks a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Monitor:
    """The metric of the choose split that picks a checkpoint.

    Attributes:
        metric: its name, ``val/…``.
        highest: whether the highest value is best, not the lowest.
        fallback: lowest of this where the metric is not defined.
    """

    metric: str
    highest: bool = False
    fallback: str = "val/loss"

    @property
    def rule(self) -> str:
        """The rule as it stands in protocols."""
        best = "highest" if self.highest else "lowest"
        return f"{best} {self.metric}, or lowest {self.fallback} where that is not defined"
