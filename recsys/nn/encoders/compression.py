"""Encoders without hidden layers: no compression, and the Linear Compression Encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.nn.encoders.base import UserEncoder


class PassThrough(UserEncoder):
    """Hands the pooled slices on: the encoder without compression of DV365 table 1."""

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N, D]."""
        return pooled


class LinearCompression(UserEncoder):
    """Linear Compression Encoder: N tokens → N_out tokens by one matrix, the same for every
    coordinate (DV365 §2.3.2).

    There is no bias: a user without history is encoded as zero, and an output is a weighted sum
    of slices whose coordinates keep their meaning.

    Each output starts as the mean of a run of neighbouring slices. Random weights would give the
    interest that many slices share a random sign and size per output; a mean carries it on as it
    is, so the embedding says something from the first step on and the tables' gradients agree.

    Args:
        num_inputs: N.
        num_outputs: N_out.
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_outputs)
        averages = F.adaptive_avg_pool1d(torch.eye(num_inputs), num_outputs)  # [N, N_out]
        self.weight = nn.Parameter(averages.t().contiguous())

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        return torch.matmul(self.weight, pooled)
