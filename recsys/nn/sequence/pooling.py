"""From the states of a sequence to one vector (NxtPost §3.2.4).

The paper found the mean to work best for its bidirectional encoder; once the encoder is causal
its user representation is the last state. A sequence without states gives zeros.

Legend: B users, E steps (jagged), T steps of the longest sequence, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.nn.sequence.base import longest, padded_slots, to_padded, user_of_step


class SumPooling(nn.Module):
    """The sum of the states."""

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[E, D] and [B] → [B, D]."""
        users = user_of_step(lengths, states.shape[0])
        return states.new_zeros([lengths.shape[0], states.shape[1]]).index_add(0, users, states)


class MeanPooling(nn.Module):
    """The mean of the states."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = SumPooling()

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[E, D] and [B] → [B, D]."""
        mean: Tensor = self.sum(states, lengths) / lengths.clamp(min=1).unsqueeze(1)
        return mean


class AttentionPooling(nn.Module):
    """The sum of the states, weighted by a softmax of one learned score per state.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.sum = SumPooling()

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[E, D] and [B] → [B, D]."""
        length = longest(lengths)
        slots = padded_slots(lengths, states.shape[0], length)
        scores = to_padded(self.score(states), slots, lengths.shape[0], length).squeeze(2)  # [B, T]
        # A sequence without steps keeps one slot: a softmax over nothing is not a number.
        absent = torch.arange(length, device=lengths.device) >= lengths.clamp(min=1).unsqueeze(1)
        weights = torch.softmax(scores.masked_fill(absent, float("-inf")), dim=1)
        pooled: Tensor = self.sum(states * weights.flatten()[slots].unsqueeze(1), lengths)
        return pooled


class LastPooling(nn.Module):
    """The state of the newest step."""

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[E, D] and [B] → [B, D]."""
        if states.shape[0] == 0:  # zeros that come from the states, as gradients must reach them
            return states.sum(dim=0, keepdim=True).expand(lengths.shape[0], -1)
        last = (torch.cumsum(lengths, dim=0) - 1).clamp(min=0)
        return states.index_select(0, last).masked_fill((lengths == 0).unsqueeze(1), 0.0)


def build_pooling(name: str, width: int) -> nn.Module:
    """The pooling called ``mean``, ``sum``, ``attention`` or ``last``.

    Raises:
        ConfigError: another name.
    """
    match name:
        case "mean":
            return MeanPooling()
        case "sum":
            return SumPooling()
        case "attention":
            return AttentionPooling(width)
        case "last":
            return LastPooling()
    raise ConfigError(f"pooling={name} is unknown; choose one of mean, sum, attention, last.")
