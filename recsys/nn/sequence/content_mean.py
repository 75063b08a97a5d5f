"""The mean of the items a user engaged with, as the ground a learned embedding stands on.

Legend: B users, E events (jagged), W width of an item embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.sequence.base import step_number, user_of_step
from recsys.nn.sequence.pooling import MeanPooling


class ContentMean(nn.Module):
    """``weight · mean of the item embeddings``, of whole histories and of their prefixes.

    Added to the output of a user tower, it makes the untrained tower the mean-of-history baseline.
    What is learned is the difference, which a corpus of few items cannot mislead on items that
    were never seen as far as a map learned from nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.mean = MeanPooling()

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Of the users: [E, W] and [B] → [B, W]; zeros without history."""
        means: Tensor = self.weight * self.mean(items, lengths)
        return means

    @torch.jit.export
    def before(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Of the events strictly before each: [E, W] and [B] → [E, W]; zeros before the first."""
        num_events = items.shape[0]
        users = user_of_step(lengths, num_events)
        first = (torch.cumsum(lengths, dim=0) - lengths)[users]  # [E]
        # summed in float64: the sums of earlier users are taken off again
        sums = torch.cumsum(items.double(), dim=0) - items
        sums = (sums - sums.index_select(0, first)).to(items.dtype)
        count = step_number(lengths, num_events).clamp(min=1).unsqueeze(1)
        return self.weight * sums / count
