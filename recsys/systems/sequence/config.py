"""The configuration of a run of SASRec or HSTU."""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.optim.dense import DenseOptimConfig
from recsys.runs.load import LoadedRun
from recsys.runs.retrieval_config import RetrievalRunConfig
from recsys.systems.sequence.module import SequenceRecommender, SequenceRecommenderConfig


@dataclass(frozen=True)
class SequenceRunConfig(RetrievalRunConfig):
    """Everything a run of SASRec or HSTU depends on; conf/system/sequence.yaml composes it.

    Attributes:
        model: the encoder and its sizes.
        optim: optimiser and schedule.
        loader: cuts and batches.
    """

    system: str = "sequence"
    model: SequenceRecommenderConfig = field(default_factory=SequenceRecommenderConfig)
    optim: DenseOptimConfig = field(default_factory=DenseOptimConfig)
    loader: SequenceLoaderConfig = field(default_factory=SequenceLoaderConfig)


#: A trained SASRec or HSTU with its run.
SequenceRun = LoadedRun[SequenceRunConfig, SequenceRecommender]
