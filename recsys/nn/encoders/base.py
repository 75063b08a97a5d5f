"""The interface of user encoders and their configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class EncoderConfig:
    """Which user encoder, and its sizes; a size that the encoder does not have stays ``None``.

    Attributes:
        name: ``funnel``, ``pass_through``, ``linear_compression``, ``dim_wise_mlp``,
            ``token_wise_mlp``, ``dim_wise_transformer``, ``token_wise_transformer`` or ``none``
            (no timelines at all, the baseline of DV365 table 1).
        num_outputs: N_out of every encoder that chooses it; the funnel's follows from its sizes.
        compression_outputs: vectors of the parallel linear compression (funnel, transformers).
        blocks: funnel blocks (n of algorithm 1).
        layers: attention layers, per block in the funnel (m of algorithm 1).
        stride: the funnel's mean-pooling stride between blocks.
        heads: attention heads; they must divide the width of every layer.
        feed_forward_factor: hidden width of a layer's feed-forward network over its width.
        hidden_sizes: hidden layers of the MLP encoders.
        dropout: dropout inside attention layers.
    """

    name: str = "funnel"
    num_outputs: int | None = None
    compression_outputs: int | None = None
    blocks: int | None = None
    layers: int | None = None
    stride: int | None = None
    heads: int | None = None
    feed_forward_factor: int | None = None
    hidden_sizes: list[int] = field(default_factory=list)
    dropout: float = 0.0


class UserEncoder(nn.Module):
    """Compresses the pooled slices of a user into the user embedding (DV365 §2.3.2).

    Args:
        num_outputs: N_out, the number of vectors it returns.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, pooled: Tensor) -> Tensor:
        """Encode pooled slices.

        Args:
            pooled: [B, N, D].

        Returns:
            [B, N_out, D].
        """
        raise NotImplementedError
