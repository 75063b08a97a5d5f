"""SASRec: self-attention over the sequence of a user's items (Kang and McAuley, ICDM 2018).

Legend: B users, T steps, E steps of all users (jagged), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.nn.dropout import FastDropout
from recsys.nn.sequence.attention import scaled_attention
from recsys.nn.sequence.tiles import Tile, TiledAttention, TiledEncoder

#: As in the authors' code.
_NORM_EPSILON = 1e-8


class SoftmaxAttention(TiledAttention):
    """Scaled dot-product attention with dropout of its weights.

    Args:
        width: D.
        heads: attention heads; they divide ``width``.
        dropout: of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads)
        self.scale = (width // heads) ** -0.5
        self.dropout = FastDropout(dropout)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """``dropout(softmax(QKᵀ / √(D / heads) + bias)) V``; shapes as in ``TiledAttention``.

        On a CPU with dropout PyTorch's own attention is slower than this; elsewhere it takes a
        kernel that keeps no scores for the backward, and ``bias``, which closes the future, is not
        looked at.
        """
        if queries.device.type != "cpu":
            return self.attend_by_kernel(queries, keys, values)
        scores = torch.baddbmm(bias, queries, keys.transpose(1, 2), alpha=self.scale)
        return torch.bmm(self.dropout(torch.softmax(scores, dim=2)), values)

    def attend_by_kernel(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The same of steps and those before them; of scores nothing is kept."""
        parts = [part.unflatten(0, [-1, self.heads]) for part in (queries, keys, values)]
        dropout = self.dropout.probability if self.training else 0.0
        attended = scaled_attention(parts[0], parts[1], parts[2], is_causal=True, dropout=dropout)
        return attended.flatten(0, 1)


class SASRecBlock(nn.Module):
    """Attention and a point-wise feed-forward network of the same width.

    As in the authors' code, ``q = Norm(x)``, ``y = q + Attention(q, x, x)``, ``z = Norm(y)`` and
    the output is ``z + FFN(z)``: only queries are normed, both residuals start behind a norm, and
    the heads' outputs stand side by side without a projection.

    Args:
        width: D.
        heads: attention heads.
        dropout: of attention weights and of both layers of the feed-forward network.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention = SoftmaxAttention(width, heads, dropout)
        self.feed_forward_norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width),
            FastDropout(dropout),
            nn.ReLU(),
            nn.Linear(width, width),
            FastDropout(dropout),
        )

    def forward(self, inputs: Tensor, tiles: list[Tile], biases: list[Tensor]) -> Tensor:
        """[E, D] → [E, D], steps in the order of the tiles."""
        normed = self.attention_norm(inputs)
        attended = self.attention(
            self.query(normed), self.key(inputs), self.value(inputs), tiles, biases
        )
        hidden = self.feed_forward_norm(normed + attended)
        outputs: Tensor = hidden + self.feed_forward(hidden)
        return outputs


class SASRecEncoder(TiledEncoder):
    """Blocks of causal self-attention and a last norm; it sees the order of steps, not their times.

    Everything but attention runs on real steps alone. Positions are part of the tokens.

    Args:
        width: D.
        blocks: number of blocks.
        heads: attention heads of a block.
        dropout: inside the blocks.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__(heads)
        self.blocks = nn.ModuleList(SASRecBlock(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, eps=_NORM_EPSILON)

    def encode(self, tokens: Tensor, tiles: list[Tile], timestamps: Tensor | None) -> Tensor:
        """[E, D] → [E, D]; ``timestamps`` are not looked at."""
        longest = tiles[0].length
        no_future = tokens.new_full([longest, longest], float("-inf")).triu(1)  # [T, T]
        biases = [no_future[: tile.length, : tile.length] for tile in tiles]
        hidden = tokens
        for block in self.blocks:
            hidden = block(hidden, tiles, biases)
        states: Tensor = self.norm(hidden)
        return states
