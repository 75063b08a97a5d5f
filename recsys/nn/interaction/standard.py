"""Numbers made to have mean 0 and deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST_SPREAD = 1e-6


@torch.no_grad()
def measure_standard(numbers: Tensor, mean: Tensor, scale: Tensor) -> None:
    """Put the mean of some rows [R, C], and one over their deviation, into two buffers [C].

    The scale of a column that is the same in all rows is 1.
    """
    mean.copy_(numbers.mean(dim=0))
    deviation = numbers.std(dim=0, correction=0)
    scale.copy_(1 / deviation.masked_fill(deviation < _FEWEST_SPREAD, 1.0))
