"""Operations that are counted, against those one counts by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.evaluation.flops import count_flops

LINEAR = nn.Linear(16, 8)
#: n, N and D.
ROWS, VECTORS, WIDTH = 7, 3, 40


def two_towers() -> Tensor:
    user, item = torch.zeros(2, ROWS, VECTORS, WIDTH)
    return (user.sum(dim=1) * item.sum(dim=1)).sum(dim=1)


def attention() -> Tensor:
    heads = torch.zeros(2, 4, 10, 8)
    return F.scaled_dot_product_attention(heads, heads, heads)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("compute", "flops"),
    [
        (lambda: LINEAR(torch.zeros(5, 16)), 2 * 5 * 16 * 8),
        (lambda: torch.bmm(torch.zeros(3, 4, 5), torch.zeros(3, 5, 6)), 2 * 3 * 4 * 5 * 6),
        (two_towers, ROWS * (2 * VECTORS * WIDTH + WIDTH + WIDTH)),
        (lambda: 0.5 * torch.zeros(9).square() - torch.zeros(9), 3 * 9),
        (lambda: torch.arange(9) * 2 + torch.arange(9).sum(), 0),
        (lambda: torch.zeros(9).softmax(dim=0).sigmoid(), 0),
    ],
)
def test_operations_are_those_of_products_and_sums(
    compute: Callable[[], Tensor], flops: int, inference: bool
) -> None:
    with torch.inference_mode(inference):
        assert count_flops(compute) == flops


def test_attention_is_two_products() -> None:
    products = 2 * 4 * 2 * (2 * 10 * 10 * 8)
    scaled = 2 * (2 * 4 * 10 * 8)  # both sides, on the way
    assert products <= count_flops(attention) <= products + scaled + 2 * 4 * 10 * 10
