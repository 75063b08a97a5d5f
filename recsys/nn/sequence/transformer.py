"""The Transformer encoder of a sequence of engagements (NxtPost §3.2, equations 1 to 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.errors import ConfigError
from recsys.nn.dropout import FastDropout
from recsys.nn.sequence.base import SequenceEncoder, longest, padded_slots, to_jagged, to_padded


class JaggedSelfAttention(nn.Module):
    """Multi-head self-attention within each user's sequence (equations 1 to 3).

    The projections run on the steps there are; the attention itself on a padded batch. Padding
    comes after the real steps, so under a causal mask no real step sees it and no other mask is
    needed. PyTorch's nested jagged tensors know no causal attention on a CPU, and without the mask
    took 5 times as long as the padded batch (forward and backward, one core; 1,024 sequences of
    up to 20 steps, and 128 of up to 200).

    Args:
        width: D.
        heads: attention heads; they divide D.
        causal: whether a step sees only itself and the steps before it.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, lengths: Tensor, slots: Tensor, padded_length: int) -> Tensor:
        """Attend.

        Args:
            tokens: [E, D].
            lengths: [B] int64.
            slots: [E] int64, of :func:`~recsys.nn.sequence.base.padded_slots`.
            padded_length: T.

        Returns:
            [E, D].
        """
        padded = to_padded(self.projection(tokens), slots, lengths.shape[0], padded_length)
        queries, keys, values = padded.chunk(3, dim=2)  # [B, T, D] each
        mask: Tensor | None = None
        if not self.causal:
            # A sequence without steps keeps one key: a softmax over nothing is not a number.
            steps = torch.arange(padded_length, device=lengths.device)
            mask = (steps < lengths.clamp(min=1).unsqueeze(1)).unsqueeze(1).unsqueeze(1)
        attended = F.scaled_dot_product_attention(
            self._split(queries),
            self._split(keys),
            self._split(values),
            attn_mask=mask,
            is_causal=self.causal,
        )
        output: Tensor = self.output(to_jagged(attended.transpose(1, 2).flatten(2), slots))
        return output

    def _split(self, tensor: Tensor) -> Tensor:
        """[B, T, D] → [B, heads, T, D / heads]."""
        return tensor.unflatten(2, [self.heads, -1]).transpose(1, 2)


class TransformerLayer(nn.Module):
    """``x = Norm(x + Att(x))``, then ``x = Norm(x + FFN(x))``.

    FFN is equation 4. The norm comes after the residual sum and dropout is on the output of
    each part, both as in the original Transformer; attention weights are not dropped out, which
    would also take the fast attention kernels away.

    Args:
        width: D.
        heads: attention heads.
        feed_forward_width: hidden units of FFN.
        dropout: of the outputs of Att and FFN.
        causal: whether a step sees only itself and the steps before it.
    """

    def __init__(
        self, width: int, heads: int, feed_forward_width: int, dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.attention = JaggedSelfAttention(width, heads, causal)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward_width), nn.ReLU(), nn.Linear(feed_forward_width, width)
        )
        self.output_norm = nn.LayerNorm(width)
        self.dropout = FastDropout(dropout)

    def forward(self, tokens: Tensor, lengths: Tensor, slots: Tensor, padded_length: int) -> Tensor:
        """[E, D] → [E, D]; arguments of :meth:`JaggedSelfAttention.forward`."""
        attended = self.attention(tokens, lengths, slots, padded_length)
        hidden = self.attention_norm(tokens + self.dropout(attended))
        encoded: Tensor = self.output_norm(hidden + self.dropout(self.feed_forward(hidden)))
        return encoded


class TransformerSequenceEncoder(SequenceEncoder):
    """A stack of Transformer layers over jagged sequences; it does not look at times.

    Args:
        width: D.
        layers: number of layers; the paper found 2 to be worth their cost (figure 8).
        heads: attention heads.
        feed_forward_factor: hidden width of FFN over D.
        dropout: 0.2 in the paper.
        causal: whether a step sees only itself and the steps before it.

    Raises:
        ConfigError: ``heads`` does not divide ``width``.
    """

    def __init__(
        self,
        width: int,
        layers: int = 2,
        heads: int = 2,
        feed_forward_factor: int = 4,
        dropout: float = 0.2,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"heads={heads} does not divide the encoder's width of {width}; "
                f"choose one of {[h for h in range(1, width + 1) if width % h == 0]}."
            )
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, feed_forward_factor * width, dropout, causal)
            for _ in range(layers)
        )

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        timestamps: Tensor | None = None,
        host_lengths: Tensor | None = None,
    ) -> Tensor:
        """See :class:`SequenceEncoder`."""
        padded_length = longest(lengths if host_lengths is None else host_lengths)
        slots = padded_slots(lengths, tokens.shape[0], padded_length)
        for layer in self.layers:
            tokens = layer(tokens, lengths, slots, padded_length)
        return tokens
