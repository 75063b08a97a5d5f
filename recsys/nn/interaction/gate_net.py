"""Gates that let a network choose what of an embedding it uses (GateNet; Huang et al., 2020)."""

from __future__ import annotations

from torch import Tensor, nn


class EmbeddingGate(nn.Module):
    """``e ⊙ σ(W e)``: every embedding, by itself, says which of its coordinates count.

    Args:
        width: D of each embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        gated: Tensor = embeddings * self.weight(embeddings).sigmoid()
        return gated


class HiddenGate(nn.Module):
    """``a ⊙ tanh(W a)``: a layer's activations say which of them go on.

    Args:
        width: of the layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width, bias=False)

    def forward(self, activations: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        gated: Tensor = activations * self.weight(activations).tanh()
        return gated
