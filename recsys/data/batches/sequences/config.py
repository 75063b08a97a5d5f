"""How sequences of engagements are cut and put into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys.core.bounds import (
    BatchSize,
    Count,
    CountOrZero,
    Hours,
    Length,
    OneOf,
    Seed,
    Settings,
    Workers,
)
from recsys.core.errors import ConfigError

CUTS = ("random", "last", "window")


@dataclass(frozen=True)
class SequenceLoaderConfig(Settings):
    """How sequences are cut into histories and labels and put into batches.

    Attributes:
        batch_size: queries per batch, at most (NxtPost §3.2: 1024).
        max_length: newest events of a history that are kept (NxtPost §3.2: 100).
        labels: next events of a training example that are its labels, at most (NxtPost §3.1.4: m).
        cut: where a training example's history ends: ``random`` draws the first label of a user
            anew in every epoch, ``last`` takes the user's last event of the fit period, ``window``
            does too or, for users with more than ``max_length`` events, draws one with as many
            events before it.
        min_history: a training example has at least so many events strictly before its first
            label. More than 0 where many events of a log share one moment (KuaiRand's undated
            videos): a cut among them would leave no history.
        only_fit_labels: labels of training examples lie in the fit period, where published user
            embeddings are served from its begin on; False: earlier ones are learned from too.
        min_events: users with fewer events before the end of the fit period are not trained on.
        gap_hours: a history ends so long before its first label; more than 0 for stale user
            embeddings (NxtPost §6.2).
        length_bucketing: form batches of histories of similar length.
        seed: with the epoch it decides cuts and order.
        num_workers: processes that build batches beside the training; 0 builds them in between.
        pin_memory: batches lie in page-locked memory, for copies to a GPU; None: if one trains.
    """

    batch_size: BatchSize = 1024
    max_length: Length = 100
    labels: Length = 1
    cut: Annotated[str, OneOf(CUTS)] = "random"
    min_history: CountOrZero = 0
    only_fit_labels: bool = False
    min_events: Count = 2
    gap_hours: Hours = 0.0
    length_bucketing: bool = False
    seed: Seed = 0
    num_workers: Workers = 0
    pin_memory: bool | None = None

    def __post_init__(self) -> None:
        """Refuse a history that leaves no label."""
        super().__post_init__()
        if self.min_events <= self.min_history:
            raise ConfigError(
                f"min_events is {self.min_events}; it must be above min_history "
                f"({self.min_history}), for a training example has a label behind its history."
            )
