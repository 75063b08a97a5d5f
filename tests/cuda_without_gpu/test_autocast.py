"""What CUDA's autocast makes of the losses, by torch's own rules on tensors without numbers.

A CPU build of torch has the rules of all devices, and fake tensors of ``cuda`` follow them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from recsys.nn.kernels import has_triton
from recsys.nn.softmax.pool_softmax import pool_softmax_loss


@contextmanager
def cuda_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """``torch.autocast("cuda")``, which itself goes off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or before[1])
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="cuda")


@pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_pool_softmax_adds_up_in_float32(dtype: torch.dtype | None) -> None:
    """Its products are taken in the type of autocast; what they sum to is not rounded to it."""
    kernel = "recsys.nn.kernels.pool_softmax_triton.logsumexp_of_negatives"
    taken = []

    def logsumexp(queries: Tensor, *_: object) -> Tensor:
        taken.append(queries.dtype)
        return queries.new_empty(len(queries), dtype=torch.float32)

    with mock.patch(kernel, logsumexp), FakeTensorMode(), torch.no_grad(), cuda_autocast(dtype):
        loss = pool_softmax_loss(made(6, 8), made(5, 8), made(6, dtype=torch.int64))
    assert taken == [dtype or torch.float32]
    assert loss.dtype == torch.float32
    assert loss.device.type == "cuda"
