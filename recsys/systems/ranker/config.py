"""The configuration of a run of the ranker."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.loaders.ranking import RankingLoaderConfig
from recsys.runs.config import RunConfig
from recsys.runs.load import LoadedRun
from recsys.systems.kinds.ranking_module import RankerOptimConfig
from recsys.systems.ranker.module import Ranker, RankerConfig


@dataclass(frozen=True)
class RankerRunConfig(RunConfig):
    """Everything a run of the ranker depends on; conf/system/ranker.yaml composes it.

    Attributes:
        model: sizes, what the tasks share, weights of the tasks.
        optim: optimisers of the tables and of everything else.
        loader: batches, recent events, what is counted.
    """

    system: str = "ranker"
    model: RankerConfig = field(default_factory=RankerConfig)
    optim: RankerOptimConfig = field(default_factory=RankerOptimConfig)
    loader: RankingLoaderConfig = field(default_factory=RankingLoaderConfig)


#: A trained ranker with its run.
RankerRun = LoadedRun[RankerRunConfig, Ranker]
