"""Published embeddings in another model, by their formulas."""

from __future__ import annotations

import torch

from recsys.nn.interaction.adopted import AdoptedEmbedding, AdoptionConfig


def test_projection_by_hand() -> None:
    torch.manual_seed(0)
    adopted = AdoptedEmbedding(AdoptionConfig(vectors=3), (4, 6), 5)
    torch.nn.init.normal_(adopted.default)
    embedding = torch.randn(2, 4, 6)
    found = adopted(embedding, torch.tensor([True, False]))
    for row, values in enumerate((embedding[0], adopted.default)):
        expected = adopted.along_vectors.weight @ values @ adopted.along_width.weight.T
        torch.testing.assert_close(found[row], expected)


def test_a_gate_comes_before_the_projection() -> None:
    torch.manual_seed(0)
    adopted = AdoptedEmbedding(AdoptionConfig(kind="gated", vectors=3), (4, 6), 6)
    embedding = torch.randn(1, 4, 6)
    gated = embedding * torch.sigmoid(embedding @ adopted.gate.weight.weight.T)
    expected = adopted.along_vectors.weight @ gated  # the projection of the width starts as it is
    torch.testing.assert_close(adopted(embedding, torch.tensor([True])), expected)


def test_the_default_is_learned_from_users_without_an_embedding_alone() -> None:
    adopted = AdoptedEmbedding(AdoptionConfig(vectors=2), (3, 4), 4)
    embedding = torch.randn(2, 3, 4, requires_grad=True)
    adopted(embedding, torch.tensor([True, False])).sum().backward()
    assert adopted.default.grad.abs().sum() > 0
    assert embedding.grad[1].abs().sum() == 0
