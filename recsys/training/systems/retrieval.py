"""What the retrieval systems share in run assembly: engagements, protocol, printed tables."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import PreparedDataset
from recsys.data.schema import Split
from recsys.data.sequences import EngagementStore, SequenceConfig
from recsys.errors import ConfigError
from recsys.training.config import RunConfig
from recsys.training.evaluate import EvaluateConfig
from recsys.training.metrics_file import Metrics
from recsys.training.retrieval import ALL, RetrievalEvaluationConfig, RetrievalProtocol
from recsys.training.retrieval_tables import print_retrieval
from recsys.training.systems.base import Measured, System

if TYPE_CHECKING:
    from recsys.training.report.page import Page


@dataclass(frozen=True)
class RetrievalRunConfig(RunConfig):
    """What a run of any retrieval system depends on.

    Attributes:
        sequences: which events are engagements.
        evaluation: how retrieval is measured.
    """

    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    evaluation: RetrievalEvaluationConfig = field(default_factory=RetrievalEvaluationConfig)


Config = TypeVar("Config", bound=RetrievalRunConfig)


class RetrievalSystem(System[Config]):
    """A system whose queries are the engagements of a split.

    Attributes:
        validated_on: candidate set of the metrics of validation.
    """

    validated_on: str = ALL

    def known(self, config: Config, dataset: PreparedDataset) -> NDArray[np.bool_]:
        """[V] the posts that can be recommended: all but the unknown one."""
        return np.arange(dataset.manifest.vocabulary_sizes["item"]) > 0

    def protocol(self, config: Config, dataset: PreparedDataset, split: Split) -> RetrievalProtocol:
        """Queries of a split and the candidates they are ranked among."""
        known = self.known(config, dataset)
        engagements = EngagementStore.open(dataset, config.sequences, known)
        return RetrievalProtocol(config.evaluation, dataset, engagements, known, split)

    def measured(self, config: Config, dataset: PreparedDataset, split: Split) -> Measured:
        """One query per engagement of the split."""
        protocol = self.protocol(config, dataset, split)
        candidates = protocol.candidates([self.validated_on])[self.validated_on]
        users = len(np.unique(protocol.queries.user))
        return Measured(len(protocol.queries), users, candidates.description)

    @abstractmethod
    def described(self, config: Config) -> dict[str, str]:
        """What was trained, for the report: ``model``, its name, and its most telling settings."""

    def report(self, folder: Path, against: Path | None, dataset: str | None) -> Page:
        """Every scorer in every candidate set, groups of queries, Hits@K over K, the export."""
        # figures are drawn with a library that training does not need
        from recsys.training.report.retrieval import report_page
        from recsys.training.report.retrieval_material import gather

        if against is not None:
            raise ConfigError(
                f"{folder} is a run of {self.name}: its report has no against=; runs of retrieval "
                "systems are compared by `recsys study`."
            )
        return report_page(gather(self, folder, dataset))

    def show(self, metrics: Metrics, config: EvaluateConfig) -> None:
        """One row per scorer."""
        print_retrieval(metrics, config)
