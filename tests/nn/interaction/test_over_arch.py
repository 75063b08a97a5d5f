"""The layers of DHEN and the dot product, against formulas written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from recsys.nn.interaction.over_arch import DotProduct, OverArch, OverArchLayer


@pytest.mark.parametrize(("vectors", "out"), [(3, 3), (5, 2), (1, 2)])
def test_a_layer_is_its_modules_side_by_side(vectors: int, out: int) -> None:
    torch.manual_seed(0)
    width = 4
    layer = OverArchLayer(vectors, out, width)
    inputs = torch.randn(2, vectors, width)
    for x, found in zip(inputs, layer(inputs), strict=True):
        linear = layer.linear.linear
        expected = linear.weight[:, :vectors] @ x + linear.bias[:, None]
        if vectors == out:
            expected = expected + x
        else:
            shortcut = layer.shortcut.linear  # type: ignore[union-attr]
            expected = expected + shortcut.weight[:, :vectors] @ x + shortcut.bias[:, None]
        pairs = [x[i] @ x[j] for i, j in itertools.combinations(range(vectors), 2)]
        if pairs:
            expected = expected + layer.products(torch.stack(pairs)[None]).view(out, width)
        second_order = sum(
            (x[i] * x[j] for i, j in itertools.combinations(range(vectors), 2)),
            torch.zeros(width),
        )
        machine = layer.machine((second_order / math.sqrt(vectors))[None]).view(out, width)
        torch.testing.assert_close(found, F.layer_norm(expected + machine, [width]))


def test_a_stack_gives_a_number_per_task() -> None:
    over = OverArch(5, 8, 3, 2, 16, 4)
    assert over(torch.randn(6, 3, 8), torch.randn(6, 2, 8)).shape == (6, 4)


def test_two_towers_are_compared_by_their_product() -> None:
    product = DotProduct(2, 2)
    with torch.no_grad():
        product.scale.copy_(torch.tensor([1.0, -2.0]))
    user, item = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 5.0]]])
    assert product(user, item).tolist() == [[13.0, -26.0]]
