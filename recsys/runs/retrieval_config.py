"""What a run of any retrieval system is configured by."""

from __future__ import annotations

from dataclasses import dataclass, field

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
