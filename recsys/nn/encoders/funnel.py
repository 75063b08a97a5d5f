"""Funnel Summarization Arch (DV365 §2.3.2, algorithm 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.nn.encoders.base import UserEncoder
from recsys.nn.encoders.compression import LinearCompression
from recsys.nn.encoders.transformer import EncoderLayer


def funnel_widths(num_inputs: int, blocks: int, stride: int) -> list[int]:
    """Width of each block: N, then each time divided by the stride and rounded up.

    Where the stride does not divide a width, the last window is shorter and its mean is taken
    over the tokens it has.
    """
    widths = [num_inputs]
    for _ in range(blocks - 1):
        widths.append(-(-widths[-1] // stride))
    return widths


class FunnelSummarization(UserEncoder):
    """n blocks of m attention layers on the transposed slices, mean pooling between the blocks,
    and a linear compression in parallel.

    U = [B, D, N]: attention runs over the D coordinates, layers and pooling work on the tokens.
    The paper's 200 slices in 3 blocks of stride 2 give 50 vectors, and 8 more from the LCE.

    Args:
        num_inputs: N.
        compression_outputs: N_lce.
        blocks: n.
        layers: m, attention layers per block.
        stride: of the mean pooling before every block but the first.
        heads: attention heads; they must divide the width of every block. None: two where they
            do, else one.
        feed_forward_factor: hidden width of FF over a block's width.
        dropout: dropout inside the layers.

    Raises:
        ConfigError: ``heads`` does not divide the width of every block.
    """

    def __init__(
        self,
        num_inputs: int,
        compression_outputs: int,
        blocks: int,
        layers: int,
        stride: int,
        heads: int | None,
        feed_forward_factor: int,
        dropout: float,
    ) -> None:
        widths = funnel_widths(num_inputs, blocks, stride)
        super().__init__(widths[-1] + compression_outputs)
        if heads is None:
            heads = 1 if any(width % 2 for width in widths) else 2
        if heads < 1 or any(width % heads for width in widths):
            fitting = [h for h in range(1, num_inputs + 1) if not any(w % h for w in widths)]
            raise ConfigError(
                f"encoder.heads={heads} does not divide every width of the funnel, {widths} for "
                f"{num_inputs} slices; choose one of {fitting}, or another encoder.stride, "
                "encoder.blocks or number of slices."
            )
        self.stride = stride
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    EncoderLayer(width, heads, feed_forward_factor * width, dropout)
                    for _ in range(layers)
                )
            )
            for width in widths
        )
        self.compression = LinearCompression(num_inputs, compression_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        # turned in memory once: every product and sum of the first layer would turn it again
        tokens = pooled.transpose(1, 2).contiguous()  # [B, D, N]
        for position, block in enumerate(self.blocks):
            if position > 0:
                tokens = self._window_means(tokens)
            tokens = block(tokens)
        # [B, N_out − N_lce, D] over [B, N_lce, D]
        return torch.cat([tokens.transpose(1, 2), self.compression(pooled)], dim=1)

    def _window_means(self, tokens: Tensor) -> Tensor:
        """[B, D, N] → [B, D, ⌈N / stride⌉]; on a CPU ``avg_pool1d`` takes twice as long."""
        if tokens.shape[2] % self.stride == 0:
            return tokens.unflatten(2, [-1, self.stride]).mean(dim=3)
        return F.avg_pool1d(tokens, self.stride, self.stride, ceil_mode=True)
