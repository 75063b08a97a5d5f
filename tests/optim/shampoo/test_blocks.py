"""How parameters are cut into blocks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.optim.shampoo.blocks import blocks_of, merged_shape


@pytest.mark.parametrize(
    ("shape", "largest", "expected"),
    [
        ((), 4, (1,)),
        ((1, 1), 4, (1,)),
        ((7,), 4, (7,)),
        ((8, 5), 64, (40,)),
        ((12, 8), 64, (12, 8)),
        ((6, 3, 3, 3), 27, (6, 27)),
        ((6, 3, 3, 3), 26, (18, 9)),
        ((9, 3, 3, 3), 26, (9, 3, 9)),
        ((2, 1, 50, 1, 3), 6, (2, 50, 3)),
        ((2, 3, 50), 6, (6, 50)),
    ],
)
def test_merging(shape: tuple[int, ...], largest: int, expected: tuple[int, ...]) -> None:
    assert merged_shape(shape, largest) == expected


def test_blocks_by_hand() -> None:
    blocks = blocks_of(3, (5, 3), 2)
    assert [block.shape for block in blocks] == [(2, 2), (2, 1), (2, 2), (2, 1), (1, 2), (1, 1)]
    assert [block.number for block in blocks] == list(range(6))
    assert {block.parameter for block in blocks} == {3}
    weights = torch.arange(15).reshape(5, 3)
    assert blocks[3].of(weights).tolist() == [[8], [11]]


def test_a_parameter_without_elements_has_no_blocks() -> None:
    assert blocks_of(0, (3, 0), 4) == []


@given(st.lists(st.integers(1, 9), max_size=4), st.integers(1, 20))
def test_blocks_cover_every_element_once(shape: list[int], largest: int) -> None:
    merged = merged_shape(shape, largest)
    assert math.prod(merged) == math.prod(shape)
    counts = torch.zeros(merged, dtype=torch.int64)
    for block in blocks_of(0, shape, largest):
        assert max(block.shape) <= largest
        assert block.of(counts).shape == block.shape
        block.of(counts).add_(1)
    assert (counts == 1).all()
