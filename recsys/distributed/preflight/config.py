"""What a check of nodes is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from recsys.core.bounds import Count, Number, OutPath, Processes, Settings


@dataclass(frozen=True)
class PreflightConfig(Settings):
    """How the nodes of a run are checked before it.

    Attributes:
        processes: of all nodes, those of a launcher or of this machine.
        gpus: that each node must have; None for as many as most of them.
        mebibytes: that a process sends at a time while bandwidths are measured.
        wait_seconds: for a process that does not answer.
        slow: a node is not fit whose best exchange with another is below this share of the median
            over nodes; of two nodes nobody can tell which is slow.
        out: folder for what was found; None writes nothing.
    """

    processes: Processes = 1
    gpus: Count | None = None
    mebibytes: Annotated[int, Number(at_least=1, at_most=4_096)] = 64
    wait_seconds: Annotated[float, Number(above=0, at_most=86_400)] = 120.0
    slow: Annotated[float, Number(at_least=0, at_most=1)] = 0.5
    out: OutPath | None = None
