"""The attention factorisation machine and the towers made of it, against sums written out."""

from __future__ import annotations

import itertools

import torch

from recsys.nn.interaction.attention_factorisation import (
    AttentionFactorisation,
    EvenLinear,
    FeatureTower,
    KeptCoordinates,
)


def test_it_is_the_weighted_sum_over_pairs() -> None:
    torch.manual_seed(0)
    machine = AttentionFactorisation(4, 3, 5)
    vectors = torch.randn(2, 4, 3)
    for row, found in zip(vectors, machine(vectors), strict=True):
        products = [row[i] * row[j] for i, j in itertools.combinations(range(4), 2)]
        scores = [
            machine.score.weight[0] @ (machine.hidden.weight @ one + machine.hidden.bias).relu()
            for one in products
        ]
        share = torch.stack(scores).softmax(dim=0)
        expected = sum(s * p for s, p in zip(share, products, strict=True))
        torch.testing.assert_close(found, expected)


def test_a_row_of_any_width_is_filled_up() -> None:
    layer = EvenLinear(7, 2)
    assert layer.linear.in_features == 16
    rows = torch.randn(3, 7)
    expected = rows @ layer.linear.weight[:, :7].t() + layer.linear.bias
    torch.testing.assert_close(layer(rows), expected)


def test_coordinates_are_kept() -> None:
    for width, out in ((3, 5), (5, 3)):
        kept = KeptCoordinates(2, 1, out)
        vectors = torch.randn(4, 2, width)
        weight = kept.along.linear.weight[0, :2]
        expected = (weight[:, None] * vectors).sum(dim=1)
        found = kept(vectors)[:, 0]
        both = min(width, out)
        torch.testing.assert_close(found[:, :both], expected[:, :both])
        assert found.shape == (4, out) and not found[:, both:].any()


def test_small_rows_that_differ_are_told_apart_from_the_start() -> None:
    torch.manual_seed(0)
    tower = FeatureTower(3, 8, 1, 16, [32])
    found = tower(0.05 * torch.randn(50, 3, 8)).flatten(1)
    alike = torch.corrcoef(found).abs()[~torch.eye(50, dtype=torch.bool)]
    assert alike.mean() < 0.5


def test_a_tower_gives_vectors_of_one_scale() -> None:
    for vectors in (1, 3):
        tower = FeatureTower(vectors, 8, 2, 12, [16])
        found = tower(10 * torch.randn(5, vectors, 8))
        assert found.shape == (5, 2, 12)
        torch.testing.assert_close(found.square().mean(dim=2), torch.ones(5, 2), atol=1e-2, rtol=0)
    assert FeatureTower(1, 8, 1, 4, []).pairs is None
