"""Gradients are clipped in bfloat16 as in full precision; what is said of products of float32."""

from __future__ import annotations

import pytest
import torch

from recsys.runs.precision import Bfloat16Mixed, choose_products


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_clipped_whatever_the_optimiser(fused: bool) -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    optimizer = torch.optim.AdamW([weight], fused=fused)
    Bfloat16Mixed("cpu").clip_gradients(optimizer, clip_val=1.0)
    torch.testing.assert_close(weight.grad, torch.full((4,), 0.5))


@pytest.mark.parametrize(
    ("on_gpu", "tf32", "precision", "said"),
    [
        (True, True, "high", "rounded to TF32 on the GPU; trainer.tf32=false"),
        (True, False, "highest", "at full float32"),
        (False, True, "highest", None),
    ],
)
def test_products_are_rounded_on_gpus_alone_and_it_is_said(
    on_gpu: bool, tf32: bool, precision: str, said: str | None
) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        sentence = choose_products(on_gpu, tf32)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert sentence is said if said is None else said in str(sentence)
