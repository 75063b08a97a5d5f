"""Gradients are clipped in bfloat16 as in full precision, also where the optimiser is fused."""

from __future__ import annotations

import pytest
import torch

from recsys.runs.precision import Bfloat16Mixed


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_clipped_whatever_the_optimiser(fused: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    optimizer = torch.optim.AdamW([weight], fused=fused)
    Bfloat16Mixed("cpu").clip_gradients(optimizer, clip_val=1.0)
    torch.testing.assert_close(weight.grad, torch.full((4,), 0.5))
