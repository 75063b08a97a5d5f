"""The gates of GateNet by their formulas."""

from __future__ import annotations

import torch

from recsys.nn.interaction.gate_net import EmbeddingGate, HiddenGate


def test_gates_by_hand() -> None:
    embeddings = torch.tensor([[[1.0, -2.0], [0.5, 0.0]]])
    gate = EmbeddingGate(2)
    hidden = HiddenGate(2)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    with torch.no_grad():
        gate.weight.weight.copy_(weight)
        hidden.weight.weight.copy_(weight)
    inside = torch.tensor([[[1.0, -1.0], [0.5, 0.5]]])  # W e
    torch.testing.assert_close(gate(embeddings), embeddings / (1 + torch.exp(-inside)))
    torch.testing.assert_close(hidden(embeddings), embeddings * torch.tanh(inside))
