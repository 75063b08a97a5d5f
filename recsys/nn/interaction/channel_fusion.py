"""One vector from several channels, by learned weights (NxtPost equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelFusion(nn.Module):
    """``f = Σ w_i φ_i`` with ``w = Softmax(proj_N(φ_1 ∥ … ∥ φ_N))``.

    Args:
        num_channels: N.
        width: D of every channel.
    """

    def __init__(self, num_channels: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(num_channels * width, num_channels)

    def forward(self, channels: Tensor, present: Tensor) -> Tensor:
        """Fuse.

        Args:
            channels: [n, N, D]; whatever stands at a missing channel is not looked at.
            present: [n, N] bool.

        Returns:
            [n, D]; zeros where every channel is missing.
        """
        channels = channels.masked_fill(~present.unsqueeze(2), 0.0)
        logits = self.projection(channels.flatten(1))
        # The weight of a missing channel is exactly 0; −∞ would not do where all are missing.
        weights = torch.softmax(logits.masked_fill(~present, -1e4), dim=1)  # [n, N]
        fused: Tensor = (weights.unsqueeze(2) * channels).sum(dim=1)
        return fused
