"""Lightning's mixed precision, with which gradients can be clipped."""

from __future__ import annotations

from typing import Any

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
