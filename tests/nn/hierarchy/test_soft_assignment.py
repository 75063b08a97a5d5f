"""The formulas of learning to index, against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recsys.nn.hierarchy.soft_assignment import (
    FlopsBalance,
    distances,
    embeddings_of,
    nearest_codes,
    soft_nodes,
    temperature,
)

CODES = [
    torch.tensor([[0.0, 0.0], [3.0, 4.0]]),
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]),
]


def test_distances_are_not_squared() -> None:
    found = distances(torch.tensor([[3.0, 4.0]]), CODES[0])
    assert found[0].tolist() == pytest.approx([5.0, 0.0], abs=1e-5)


def test_a_distance_of_nothing_has_a_gradient() -> None:
    items = torch.zeros(1, 2, requires_grad=True)
    distances(items, CODES[0]).sum().backward()
    assert torch.isfinite(items.grad).all()  # type: ignore[arg-type]


def test_soft_nodes_are_those_of_the_formulas() -> None:
    item, alpha = torch.tensor([[1.0, 0.0]]), 0.5
    found = soft_nodes(item, CODES, alpha)
    # d = 1 and sqrt(4 + 16)
    weights = [math.exp(-alpha * 1), math.exp(-alpha * math.sqrt(20))]
    share = weights[1] / sum(weights)
    first = [3 * share, 4 * share]
    assert found.shares[0][0].tolist() == pytest.approx([1 - share, share], rel=1e-5)
    assert found.nodes[0][0].tolist() == pytest.approx(first, rel=1e-5)
    # r_2 = r_1 − c̄_1
    left = [1 - first[0], -first[1]]
    weights = [math.exp(-alpha * math.dist(left, code)) for code in CODES[1].tolist()]
    shares = [one / sum(weights) for one in weights]
    second = [shares[0] - shares[2], shares[1]]
    assert found.shares[1][0].tolist() == pytest.approx(shares, rel=1e-5)
    expected = [first[0] + second[0], first[1] + second[1]]
    assert found.nodes[1][0].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_hard_temperature_gives_the_nearest_codes() -> None:
    items = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) * 3
    hard = embeddings_of(nearest_codes(items, CODES), CODES)
    soft = soft_nodes(items, CODES, 1e4).nodes
    for one, other in zip(soft, hard, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    even = soft_nodes(items, CODES, 0.0).shares[1]
    torch.testing.assert_close(even, torch.full_like(even, 1 / 3))


def test_no_level_has_no_codes() -> None:
    assert nearest_codes(torch.zeros(3, 2), []).shape == (3, 0)
    assert soft_nodes(torch.zeros(3, 2), [], 1.0).nodes == []


def test_temperature_goes_from_soft_to_hard() -> None:
    assert temperature(8.0, 0.0, 2.0) == 0
    assert temperature(8.0, 0.5, 2.0) == 2
    assert temperature(8.0, 1.0, 2.0) == temperature(8.0, 1.5, 2.0) == 8


def test_the_balance_is_of_the_last_batches_together() -> None:
    balance = FlopsBalance(2, 2)
    first, second, third = (torch.tensor(one) for one in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    assert balance(first).item() == 1  # alone
    assert balance(second).item() == 0.5  # with the first: (½)² + (½)²
    assert balance(third).item() == pytest.approx(0.25**2 + 0.75**2)  # with the second
    last = torch.tensor([0.5, 0.5], requires_grad=True)
    balance(last).backward()
    # d/da Σ ((a + b) / 2)² = (a + b) / 2 with b = [½, ½]
    assert last.grad is not None and last.grad.tolist() == [0.5, 0.5]
