"""MLP encoders, on all coordinates at once or token-wise (DV365 §3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from recsys.nn.encoders.base import UserEncoder


def feed_forward(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given sizes with GELU between them and none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class DimWiseMLP(UserEncoder):
    """MLP on the slices laid side by side, [1, N×D] → [1, N_out×D].

    Args:
        num_inputs: N.
        num_outputs: N_out.
        dimension: D.
        hidden_sizes: hidden layers; none by default, for the matrix alone has N·D·N_out·D weights.
    """

    def __init__(
        self, num_inputs: int, num_outputs: int, dimension: int, hidden_sizes: Sequence[int] = ()
    ) -> None:
        super().__init__(num_outputs)
        self.mlp = feed_forward([num_inputs * dimension, *hidden_sizes, num_outputs * dimension])

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        encoded: Tensor = self.mlp(pooled.flatten(1))  # [B, N_out·D]
        return encoded.reshape(pooled.shape[0], self.num_outputs, pooled.shape[2])


class TokenWiseMLP(UserEncoder):
    """MLP on the last dimension of the transposed slices, [D, N] → [D, N_out].

    Args:
        num_inputs: N.
        num_outputs: N_out.
        hidden_sizes: hidden layers; without one it would be a linear compression.
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__(num_outputs)
        self.mlp = feed_forward([num_inputs, *hidden_sizes, num_outputs])

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        encoded: Tensor = self.mlp(pooled.transpose(1, 2))  # [B, D, N_out]
        return encoded.transpose(1, 2)
