"""The configuration of a run of HSNN."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.loaders.ranking import RankingLoaderConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.hsnn.module import Hsnn, HsnnConfig
from recsys.systems.ranker.module import RankerOptimConfig


@dataclass(frozen=True)
class HsnnRunConfig(RetrievalRunConfig):
    """Everything a run of HSNN depends on; conf/system/hsnn.yaml composes it.

    Attributes:
        model: sizes of the levels, how nodes are learned, weights of the losses.
        optim: optimisers of the tables and of everything else.
        loader: batches, recent events, what is counted.
    """

    system: str = "hsnn"
    model: HsnnConfig = field(default_factory=HsnnConfig)
    optim: RankerOptimConfig = field(default_factory=RankerOptimConfig)
    loader: RankingLoaderConfig = field(default_factory=RankingLoaderConfig)


#: A trained HSNN with its run.
HsnnRun = LoadedRun[HsnnRunConfig, Hsnn]
