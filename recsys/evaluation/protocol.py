"""A metric travels with the protocol it was measured under."""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: Every row of a request was shown to the user: nothing is sampled.
LOGGED_IMPRESSIONS = "logged impressions"


@dataclass(frozen=True)
class MetricValue:
    """A number and how it was got.

    Attributes:
        value: the number.
        protocol: the sentence of a ``Protocol``.
    """

    value: float
    protocol: str

    def as_dict(self) -> dict[str, float | str]:
        """``{"value": …, "protocol": …}``, the form of ``metrics.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Protocol:
    """How a metric was measured.

    Attributes:
        dataset: name of the data set.
        split: ``choose`` or ``report``.
        rows: number of rows measured.
        users: number of users they belong to.
        seed: seed of the run.
        checkpoint: file name of the checkpoint measured.
        chosen_by: the rule that chose it, for example ``lowest val/ne/mean``.
        candidates: which items were scored.
        tie_rule: how equal scores count, for metrics that rank; empty for the others.
        part: which rows of the split were measured; empty for all.
    """

    dataset: str
    split: str
    rows: int
    users: int
    seed: int
    checkpoint: str
    chosen_by: str
    candidates: str = LOGGED_IMPRESSIONS
    tie_rule: str = ""
    part: str = ""

    def sentence(self) -> str:
        """The protocol as one line."""
        ties = f"; ties: {self.tie_rule}" if self.tie_rule else ""
        part = f", {self.part}" if self.part else ""
        return (
            f"{self.dataset}, split {self.split}{part}: {self.rows} rows of {self.users} users; "
            f"candidates: {self.candidates}{ties}; seed {self.seed}; checkpoint "
            f"{self.checkpoint} (chosen by: {self.chosen_by})"
        )

    def measure(self, value: float) -> MetricValue:
        """``value`` with this protocol."""
        return MetricValue(value, self.sentence())
