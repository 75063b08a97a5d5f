"""User embeddings of queries: with the histories the run's loader gives them, or with others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.evaluation.cold_start import StandInHistories
from recsys.evaluation.division import in_parts
from recsys.evaluation.queries import EvaluationQueries

#: Queries embedded at a time.
_QUERIES_PER_BATCH = 1024


@dataclass(frozen=True, eq=False)
class QueryEmbedder:
    """A trained user tower over the queries of a split.

    Attributes:
        tower: histories to user embeddings [B, W].
        reader: reads histories.
        gap_hours: how long before its label a history of the training ends.
    """

    tower: Callable[[SequenceBatch], Tensor]
    reader: SequenceReader
    gap_hours: float

    def embed(self, queries: EvaluationQueries) -> Tensor:
        """User embeddings [Q, W] float32, as validation makes them: where the run trains on
        histories that end some hours before their label, these end so before the query.
        """
        gap = round(self.gap_hours * MILLISECONDS_PER_HOUR)
        return self.with_histories(queries.as_of(self.reader.engagements, queries.time - gap))

    @torch.no_grad()
    def with_histories(
        self,
        queries: EvaluationQueries,
        as_of: NDArray[np.int64] | None = None,
        stand_ins: StandInHistories | None = None,
    ) -> Tensor:
        """User embeddings [Q, W] float32 of the histories that the queries say.

        Args:
            queries: Q queries.
            as_of: [Q] ms, when the embedding is made; None for the moment of the query.
            stand_ins: put before the users' own events.
        """
        moment = queries.time if as_of is None else as_of
        none = np.zeros(len(queries), np.int64)

        def embed(rows: slice) -> Tensor:
            batch = self.reader.read(
                queries.user[rows],
                moment[rows],
                queries.history_end[rows],
                none[rows],
                none[:0],
                np.arange(len(queries))[rows],
            )
            if stand_ins is not None:
                batch = stand_ins.prepend_to(batch, self.reader.engagements)
            return self.tower(batch).float()

        firsts = range(0, len(queries), _QUERIES_PER_BATCH)
        parts = [slice(first, first + _QUERIES_PER_BATCH) for first in firsts]
        return torch.cat(in_parts(parts, embed, "Embedding users"))
