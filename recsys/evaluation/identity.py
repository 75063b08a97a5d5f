"""Which trained model a number is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointUsed:
    """Which weights of a run something was made with.

    Attributes:
        name: file name of the checkpoint.
        chosen_by: the rule that chose it.
        step: optimiser steps it was trained for.
    """

    name: str
    chosen_by: str
    step: int


@dataclass(frozen=True)
class RunIdentity:
    """What evaluation says of the run it measures; it is given the run's scores, not the run.

    Attributes:
        folder: the run folder.
        system: what was trained.
        dataset: name of the data set it is measured on; of one that has grown, which days.
        data: fingerprint of that data set.
        seed: of the run.
        checkpoint: which of its weights are measured.
    """

    folder: Path
    system: str
    dataset: str
    data: str
    seed: int
    checkpoint: CheckpointUsed
