"""The interface of user encoders and their configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from recsys.core.bounds import Few, Settings, ShareBelowOne, Width, WidthOrZero


@dataclass(frozen=True)
class EncoderConfig(Settings):
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
    num_outputs: Width | None = None
    compression_outputs: WidthOrZero | None = None
    blocks: Few | None = None
    layers: Few | None = None
    stride: Width | None = None
    heads: Few | None = None
    feed_forward_factor: Few | None = None
    hidden_sizes: list[Width] = field(default_factory=list)
    dropout: ShareBelowOne = 0.0


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
