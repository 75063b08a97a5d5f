"""What a step keeps: formulas against what autograd saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.cuda_without_gpu.kept import Kept
from tests.cuda_without_gpu.memory import (
    PAPERS,
    Sequences,
    Slices,
    pooling_formula,
    pooling_tracked,
)
from tests.nn.pooling.slice_samples import SMALL as SLICES

SMALL = (
    Sequences(users=3, steps=7, width=12, layers=2, heads=1),
    Sequences(users=5, steps=40, width=16, layers=1, heads=2),
    Sequences(users=90, steps=500, width=8, layers=3, heads=1),
)
FUNNELS = (Slices(users=2, slices=24, width=10, blocks=2), Slices(1, 40, 32))


@pytest.mark.parametrize(("name", "formula", "tracked", "sizes"), PAPERS)
def test_formulas_are_what_is_saved(
    name: str, formula: Callable[[Any], int], tracked: Callable[[Any], int], sizes: Any
) -> None:
    small = FUNNELS if isinstance(sizes, Slices) else SMALL
    for one in (*small, sizes):
        assert tracked(one) == formula(one), one


def test_of_events_pooling_keeps_rows_and_weights_whatever_the_width() -> None:
    lookups, weighted, few = pooling_tracked(50, 8, SLICES)
    more_lookups, more_weighted, many = pooling_tracked(400, 8, SLICES)
    assert many - few == pooling_formula(more_lookups - lookups, more_weighted - weighted)
    assert pooling_tracked(400, 16, SLICES)[2] == many


def test_what_shares_memory_counts_once_and_weights_do_not() -> None:
    layer = torch.nn.Linear(3, 2)
    inputs = torch.ones(5, 3)
    with Kept(layer) as kept:
        (layer(inputs).sum() + layer(inputs[1:]).sum()).exp()
    assert kept.bytes == 4 * (5 * 3) + 4  # the inputs, and the one number that exp gave
