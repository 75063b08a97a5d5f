"""Attention layer of equation 11 and the two plain Transformer encoders of DV365 table 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.nn.encoders.base import UserEncoder
from recsys.nn.encoders.compression import LinearCompression
from recsys.nn.encoders.mlp import feed_forward


class SelfAttention(nn.Module):
    """Multi-head self-attention over the rows.

    ``nn.MultiheadAttention`` computes the same, but moves the batch to the second dimension and
    stacks queries, keys and values in between: 1.7 times the time at width 48 on a CPU.

    Args:
        width: size of the last dimension.
        heads: attention heads; they divide ``width``.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, rows, width] → [B, rows, width]."""
        queries, keys, values = self.projection(inputs).chunk(3, dim=2)
        attended = F.scaled_dot_product_attention(
            self._split(queries),
            self._split(keys),
            self._split(values),
            dropout_p=self.dropout if self.training else 0.0,
        )
        output: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return output

    def _split(self, tensor: Tensor) -> Tensor:
        """[B, rows, width] → [B, heads, rows, width / heads]."""
        return tensor.unflatten(2, [self.heads, -1]).transpose(1, 2)


class EncoderLayer(nn.Module):
    """``Norm(U + FF(Norm(U + Att(U))))``, as DV365 equation 11 prints it.

    Both residuals start from the layer's input U; PyTorch's ``TransformerEncoderLayer`` takes the
    second one from the inner norm, so it cannot stand in here.

    Args:
        width: size of the last dimension of U.
        heads: attention heads.
        feed_forward_width: hidden size of FF.
        dropout: dropout on attention weights and on the output of Att and FF.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int, feed_forward_width: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"encoder.heads={heads} does not divide an attention layer's width of {width}; "
                f"choose one of {[h for h in range(1, width + 1) if width % h == 0]}."
            )
        self.attention = SelfAttention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward([width, feed_forward_width, width])
        self.output_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """U → U, [B, rows, width]; attention runs over the rows."""
        hidden = self.attention_norm(inputs + self.dropout(self.attention(inputs)))
        encoded: Tensor = self.output_norm(inputs + self.dropout(self.feed_forward(hidden)))
        return encoded


class _TransformerWithCompression(UserEncoder):
    """Attention layers of one width, whose last outputs stand beside an LCE.

    Args:
        num_inputs: N.
        width: width of the layers: D, or N in the token-wise view.
        num_outputs: N_out, of which ``compression_outputs`` are the LCE's.
        compression_outputs: N_lce.
        layers: number of attention layers.
        heads: attention heads.
        feed_forward_factor: hidden width of FF over ``width``.
        dropout: dropout inside the layers.
    """

    def __init__(
        self,
        num_inputs: int,
        width: int,
        num_outputs: int,
        compression_outputs: int,
        layers: int,
        heads: int,
        feed_forward_factor: int,
        dropout: float,
    ) -> None:
        super().__init__(num_outputs)
        self.kept = num_outputs - compression_outputs
        self.layers = nn.Sequential(
            *(
                EncoderLayer(width, heads, feed_forward_factor * width, dropout)
                for _ in range(layers)
            )
        )
        self.compression = LinearCompression(num_inputs, compression_outputs)


class DimWiseTransformer(_TransformerWithCompression):
    """Transformer on [N, D], attention over the N tokens; its last outputs beside an LCE.

    ``width`` is D.
    """

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        encoded: Tensor = self.layers(pooled)
        return torch.cat([encoded[:, -self.kept :], self.compression(pooled)], dim=1)


class TokenWiseTransformer(_TransformerWithCompression):
    """Transformer on [D, N], attention over the D coordinates; its last outputs beside an LCE.

    ``width`` is N, which the layers keep. An output token is a column of U, so the last N_out
    outputs of the paper are the last columns: transposed back, the last tokens.
    """

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, N, D] → [B, N_out, D]."""
        encoded: Tensor = self.layers(pooled.transpose(1, 2)).transpose(1, 2)  # [B, N, D]
        return torch.cat([encoded[:, -self.kept :], self.compression(pooled)], dim=1)
