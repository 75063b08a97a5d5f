"""What a run of any retrieval system is configured by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.evaluation.retrieval import RetrievalEvaluationConfig
from recsys.runs.config import RunConfig


@dataclass(frozen=True)
class RetrievalRunConfig(RunConfig):
    """What a run of any retrieval system depends on.

    Attributes:
        sequences: which events are engagements.
        evaluation: how retrieval is measured.
    """

    sequences: SequenceConfig = field(default_factory=SequenceConfig)
    evaluation: RetrievalEvaluationConfig = field(default_factory=RetrievalEvaluationConfig)

    def on(self, manifest: DatasetManifest) -> Self:
        """Which actions are engagements, and whether their times are moments."""
        sequences = self.sequences.on(manifest)
        evaluation = self.evaluation if sequences.has_times else self.evaluation.without_times()
        return replace(self, sequences=sequences, evaluation=evaluation)
