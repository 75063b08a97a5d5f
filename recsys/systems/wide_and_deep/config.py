"""The configuration of a run of the wide-and-deep baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.wide_and_deep.module import WideAndDeepRecommender
from recsys.systems.wide_and_deep.net import WideAndDeepConfig


@dataclass(frozen=True)
class WideAndDeepRunConfig(RetrievalRunConfig):
    """Everything a run depends on; conf/system/wide_and_deep.yaml composes it.

    Attributes:
        model: sizes.
        optim: optimiser and schedule.
        loader: cuts, labels and batches.
    """

    system: str = "wide_and_deep"
    model: WideAndDeepConfig = field(default_factory=WideAndDeepConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)


#: A trained wide-and-deep model with its run.
WideAndDeepRun = LoadedRun[WideAndDeepRunConfig, WideAndDeepRecommender]
