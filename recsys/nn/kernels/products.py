"""Products of tiles, as every Triton kernel here takes them."""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: N803

from __future__ import annotations

import torch
import triton
import triton.language as tl

#: Triton's interpreter (TRITON_INTERPRET=1) multiplies the bits of bfloat16 as integers.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(left, right, PRECISION: tl.constexpr):
    """Matrix product with sums in float32."""
    if _INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision=PRECISION)


def float32_precision() -> str:
    """How float32 is multiplied: ``torch.set_float32_matmul_precision`` decides.

    Full precision is the sum of three TF32 products on the tensor cores.
    """
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
