"""Lightning's mixed precision, with which gradients can be clipped."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch.optim import Optimizer

from recsys.runs.config import BF16_MIXED


class Bfloat16Mixed(MixedPrecision):
    """Autocast to bfloat16.

    Lightning refuses to clip where the optimiser is fused, since that would unscale the gradients
    in its step. Only float16 has a scale.
    """

    def __init__(self, device: str) -> None:
        super().__init__(BF16_MIXED, device)  # type: ignore[arg-type]

    def clip_gradients(self, optimizer: Optimizer, *args: Any, **settings: Any) -> None:
        """Clip as in full precision."""
        Precision.clip_gradients(self, optimizer, *args, **settings)


def choose_products(on_gpu: bool, tf32: bool) -> str | None:
    """Set how matrix products of float32 are taken from here on.

    Returns:
        What the user should know of it, if anything.
    """
    rounded = on_gpu and tf32
    torch.set_float32_matmul_precision("high" if rounded else "highest")
    if not on_gpu:
        return None
    if rounded:
        return (
            "Matrix products of float32 are rounded to TF32 on the GPU; trainer.tf32=false keeps "
            "them at float32."
        )
    return "Matrix products are at full float32 (trainer.tf32=false), which is slow on a GPU."
