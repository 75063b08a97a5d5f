"""The configuration of a run of NxtPost."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.nxtpost.items import ItemsConfig
from recsys.systems.nxtpost.module import NxtPost, NxtPostConfig


@dataclass(frozen=True)
class NxtPostRunConfig(RetrievalRunConfig):
    """Everything a run of NxtPost depends on; conf/system/nxtpost.yaml composes it.

    Attributes:
        posts: where the embeddings of items come from.
        model: the tower and its losses.
        optim: optimiser and schedule.
        loader: cuts, labels and batches.
    """

    system: str = "nxtpost"
    posts: ItemsConfig = field(default_factory=ItemsConfig)
    model: NxtPostConfig = field(default_factory=NxtPostConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)


#: A trained NxtPost with its run.
NxtPostRun = LoadedRun[NxtPostRunConfig, NxtPost]
