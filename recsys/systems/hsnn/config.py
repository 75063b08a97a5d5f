"""The configuration of a run of HSNN."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.core.bounds import Count, Settings
from recsys.data.loaders.unlabelled import UnlabelledLoaderConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.hsnn.module import Hsnn, HsnnConfig
from recsys.systems.kinds.ranking_module import RankerOptimConfig


@dataclass(frozen=True)
class DescentConfig(Settings):
    """How items are found.

    Attributes:
        task: by which nodes and items are ranked; None for the first.
        beam: nodes of each level that are kept when items are recommended.
        beams: with which `recsys evaluate` measures, beside every item scored.
        recall_at: of the items that are best when every one is scored, so many are looked for.
    """

    task: str | None = None
    beam: Count = 8
    beams: list[Count] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    recall_at: list[Count] = field(default_factory=lambda: [10, 100])


@dataclass(frozen=True)
class HsnnRunConfig(RetrievalRunConfig):
    """Everything a run of HSNN depends on; conf/system/hsnn.yaml composes it.

    Attributes:
        model: sizes of the levels, how nodes are learned, weights of the losses.
        optim: optimisers of the tables and of everything else.
        loader: batches, recent events, what is counted, items that nobody has shown.
        descent: how items are found.
    """

    system: str = "hsnn"
    model: HsnnConfig = field(default_factory=HsnnConfig)
    optim: RankerOptimConfig = field(default_factory=RankerOptimConfig)
    loader: UnlabelledLoaderConfig = field(default_factory=UnlabelledLoaderConfig)
    descent: DescentConfig = field(default_factory=DescentConfig)


#: A trained HSNN with its run.
HsnnRun = LoadedRun[HsnnRunConfig, Hsnn]
