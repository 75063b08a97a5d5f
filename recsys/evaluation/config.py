"""What `recsys evaluate` is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import OneOf, Processes, Settings
from recsys.core.engines import EngineConfig
from recsys.data.contract.schema import Split
from recsys.evaluation.baselines.config import TASK_BASELINES, BoostingConfig
from recsys.evaluation.paired import Bootstrap

#: Metric names begin with the split's prefix.
PREFIXES = {Split.CHOOSE: "val", Split.REPORT: "report"}


@dataclass(frozen=True)
class EvaluateConfig(Settings):
    """What to measure.

    Attributes:
        run_dir: the run folder.
        against: another run on the same data set, usually the one without timelines.
        split: ``report``, or ``choose`` while a model is being developed.
        checkpoint: ``best``, ``last``, or a path. The other run is measured at its checkpoint of
            the same name, and at ``best`` where this is a path.
        dataset: the prepared data set, of both runs, where it was moved since the training.
        processes: that divide the work, those of a launcher or of this machine.
        engine: ``ray`` divides it over Ray's workers instead.
        bootstrap: how intervals are made.
        baselines: scorers to measure beside a system that predicts tasks; retrieval systems have
            theirs in ``evaluation.baselines`` of the run.
        boosting: of the one that is trained by LightGBM.
    """

    run_dir: str = MISSING
    against: str | None = None
    split: Annotated[str, OneOf(tuple(PREFIXES))] = "report"
    checkpoint: str = "best"
    dataset: str | None = None
    processes: Processes = 1
    engine: EngineConfig = field(default_factory=EngineConfig)
    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    baselines: list[Annotated[str, OneOf(tuple(TASK_BASELINES))]] = field(
        default_factory=lambda: list(TASK_BASELINES)
    )
    boosting: BoostingConfig = field(default_factory=BoostingConfig)

    def __post_init__(self) -> None:
        """Refuse two numbers of processes."""
        super().__post_init__()
        self.engine.refuse_beside(self.processes)

    @property
    def prefix(self) -> str:
        """What the names of the split's metrics begin with."""
        return PREFIXES[Split(self.split)]
