"""How many floating-point operations a computation takes, counted while it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

#: In ``metrics.json``: what a query takes, and how many nodes and items are scored for it.
FLOPS_PER_QUERY, PAIRS_SCORED = "flops_per_query", "pairs_scored"


def count_flops(compute: Callable[[], object]) -> int:
    """Floating-point operations of what ``compute`` does.

    Counted are matrix products, attention's among them, and products and sums number by number, of
    which a dot product of two towers consists; not activations, norms and lookups. A product of
    [n, i] and [i, o] counts 2 n i o.
    """
    # the counter knows no attention of the CPU that is one operation
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=_BY_NUMBER) as counter,
    ):
        compute()
    return int(counter.get_total_flops())


def _of_output(*_: Any, out_val: Tensor, **__: Any) -> int:
    return _numbers(out_val)


def _of_input(given: Tensor, *_: Any, **__: Any) -> int:
    return _numbers(given)


def _numbers(tensor: Tensor) -> int:
    return tensor.numel() if tensor.is_floating_point() else 0


# the counter is to hand over tensors, not their shapes: whole numbers are no floating-point ones
for _by_number in (_of_output, _of_input):
    vars(_by_number)["_get_raw"] = True

_aten = torch.ops.aten
_BY_NUMBER = {
    _aten.mul: _of_output,
    _aten.add: _of_output,
    _aten.sub: _of_output,
    _aten.div: _of_output,
    _aten.pow: _of_output,
    _aten.sum: _of_input,
}
