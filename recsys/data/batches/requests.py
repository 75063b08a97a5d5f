"""What the loader hands to a request-level model: timelines once per request, rows per item.

Legend: B requests, R rows (items over all requests), E events over all requests, T recent events,
C numbers counted, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.data.batches.tensor_batch import TensorBatch
from recsys.data.contract.schema import LENGTHS

#: A jagged timeline: ``lengths`` [B] int64 and one flat tensor [E] per column of
#: ``EXPLICIT_COLUMNS`` or ``IMPLICIT_COLUMNS``, events of a request side by side, oldest first.
#: A plain dictionary, because TorchScript passes it through an exported tower.
JaggedTimeline = dict[str, Tensor]


@dataclass
class RowsBatch(TensorBatch):
    """Requests with their rows, whatever a model reads of their histories.

    Attributes:
        request_time: [B] int64, ms.
        user_categorical: [B, F_u] int64, columns in the order of the manifest's features.
        user_dense: [B, D_u] float32, standardised.
        rows_per_request: [B] int64, sums to R.
        item_categorical: [R, F_i] int64: item features, then context features.
        item_dense: [R, D_i] float32: item features, then context features.
        labels: [R, K] float32, NaN where a label was not observed.
        row_id: [R] int64, position of the row in its split: pairs predictions of two runs.
    """

    request_time: Tensor
    user_categorical: Tensor
    user_dense: Tensor
    rows_per_request: Tensor
    item_categorical: Tensor
    item_dense: Tensor
    labels: Tensor
    row_id: Tensor

    @property
    def request_index(self) -> Tensor:
        """[R] int64: the request each row belongs to."""
        positions = torch.arange(len(self.rows_per_request), device=self.rows_per_request.device)
        return torch.repeat_interleave(
            positions, self.rows_per_request, output_size=len(self.row_id)
        )


@dataclass
class RequestBatch(RowsBatch):
    """Requests with their rows and whole timelines.

    Attributes:
        explicit: jagged explicit timeline, every event strictly before ``request_time - gap``.
        implicit: jagged implicit timeline, likewise.
    """

    explicit: JaggedTimeline
    implicit: JaggedTimeline

    @property
    def events(self) -> Tensor:
        """[B, 2] int64: explicit and implicit events of each request."""
        return torch.stack([self.explicit[LENGTHS], self.implicit[LENGTHS]], dim=1)


@dataclass
class RankingBatch(RowsBatch):
    """Requests with their rows, recent events and what is counted of each row.

    Of the T recent events the newest one is the last; where a user has fewer, zeros come first.

    Attributes:
        events: [B, 2] int64: explicit and implicit events of each request that were read.
        recent_lengths: [B] int64, recent events of each request.
        recent_ids: [B, T, 3] int64: item, author and topic.
        recent_action: [B, T] int64: 1 + the position in the manifest's action types.
        recent_time: [B, T] int64, ms.
        recent_dwell: [B, T] float32: log(1 + seconds) where the dwell time is known.
        counted: [R, C] float32, of ``CandidateFeatures``.
        user_embedding: [B, N, W] float32, published ones as they were served; zeros where there is
            none, and of no size for models that read none.
        has_embedding: [B] bool, whether there is one.
    """

    events: Tensor
    recent_lengths: Tensor
    recent_ids: Tensor
    recent_action: Tensor
    recent_time: Tensor
    recent_dwell: Tensor
    counted: Tensor
    user_embedding: Tensor
    has_embedding: Tensor
