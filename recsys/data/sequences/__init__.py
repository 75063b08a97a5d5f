"""Sequences of engagements, cut where a query may look, for retrieval models (NxtPost, SASRec)."""

from recsys.data.sequences.batch import SequenceBatch
from recsys.data.sequences.config import SequenceConfig, SequenceLoaderConfig
from recsys.data.sequences.datamodule import SequenceDataModule
from recsys.data.sequences.engagements import EngagementStore
from recsys.data.sequences.reader import SequenceReader

__all__ = [
    "EngagementStore",
    "SequenceBatch",
    "SequenceConfig",
    "SequenceDataModule",
    "SequenceLoaderConfig",
    "SequenceReader",
]
