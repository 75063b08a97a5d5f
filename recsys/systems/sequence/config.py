"""The configuration of a run of SASRec or HSTU."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.contract.manifest import DatasetManifest
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

    def __post_init__(self) -> None:
        """Refuse sequences longer than the model has places for."""
        super().__post_init__()
        if self.model.max_length < self.loader.max_length:
            raise ConfigError(
                f"model.max_length={self.model.max_length} is less than loader.max_length="
                f"{self.loader.max_length}: set loader.max_length, which the model follows."
            )

    def on(self, manifest: DatasetManifest) -> Self:
        """Whether HSTU looks at times follows from the data set too."""
        settled = super().on(manifest)
        if self.model.has_times is not None:
            return settled
        has_times = self.model.encoder == "hstu" and settled.sequences.has_times
        return replace(settled, model=replace(self.model, has_times=has_times))


#: A trained SASRec or HSTU with its run.
SequenceRun = LoadedRun[SequenceRunConfig, SequenceRecommender]
