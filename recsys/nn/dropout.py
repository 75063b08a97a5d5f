"""Dropout whose random numbers cost less on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


class FastDropout(nn.Module):
    """``nn.Dropout``, with 16 random bits per element on a CPU.

    PyTorch draws a number of its own for every element, one after the other on one core: with
    dropout on its weights, attention takes twice the time. Here one draw of 64 bits decides about
    four elements; the probability is rounded to a multiple of 2⁻¹⁶, and what is kept is scaled by
    the rounded one. On other devices, and in TorchScript, it is PyTorch's own.

    Args:
        probability: of an element to become zero, below 1.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, inputs: Tensor) -> Tensor:
        """Zero some elements and scale the others, in training; any shape."""
        if not self.training or self.probability == 0.0:
            return inputs
        if torch.jit.is_scripting():
            return F.dropout(inputs, self.probability)
        else:  # not compiled by TorchScript, which a bare return above would not achieve
            return fast_dropout(inputs, self.probability)


def fast_dropout(inputs: Tensor, probability: float) -> Tensor:
    """What ``FastDropout`` does in training; any shape."""
    if inputs.device.type != "cpu":
        return F.dropout(inputs, probability)
    dropped = round(probability * _LEVELS)
    draws = torch.empty((inputs.numel() + 3) // 4, dtype=torch.int64)
    draws.random_(-(2**63), None)
    bits = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    kept = (bits >= dropped - _LEVELS // 2).to(inputs.dtype)
    return inputs * kept.mul_(_LEVELS / (_LEVELS - dropped))
