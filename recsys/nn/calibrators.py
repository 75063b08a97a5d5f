"""Curves from a model's probabilities to calibrated ones, one per task.

Written for TorchScript: a run and its artifact apply the same code.
Legend: R rows, K tasks, N knots.
"""

# no `from __future__ import annotations`: TorchScript reads the types of buffers from the class

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Probabilities are kept this far from 0 and 1 where their logit is taken.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Curve:
    """How the predictions of one task are calibrated.

    Attributes:
        kind: ``isotonic``: linear between knots, flat beyond them; ``platt``: sigmoid of ``slope``
            times the logit plus ``offset``; ``none``: the predictions as they are.
        knots: probabilities of the model, rising.
        values: what they are calibrated to, not falling.
        slope: of the logit, at least 0.
        offset: of the logit.
    """

    kind: str = "none"
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    slope: float = 1.0
    offset: float = 0.0


class Calibrators(nn.Module):
    """The curves of K tasks.

    Args:
        curves: in the order of the tasks.
    """

    knots: Tensor
    values: Tensor
    slope: Tensor
    offset: Tensor
    is_isotonic: Tensor
    is_platt: Tensor

    def __init__(self, curves: Sequence[Curve]) -> None:
        super().__init__()
        number = max([2, *(len(one.knots) for one in curves)])
        # what fills up lies beyond every probability, and goes on flat
        filled = 2.0 + torch.arange(number, dtype=torch.float64)
        knots, values = filled.repeat(len(curves), 1), torch.zeros(len(curves), number).double()
        for row, one in enumerate(curves):
            if one.knots:
                knots[row, : len(one.knots)] = torch.tensor(one.knots, dtype=torch.float64)
                values[row, : len(one.values)] = torch.tensor(one.values, dtype=torch.float64)
                values[row, len(one.values) :] = one.values[-1]
        buffers = {
            "knots": knots,
            "values": values,
            "slope": torch.tensor([one.slope for one in curves], dtype=torch.float64),
            "offset": torch.tensor([one.offset for one in curves], dtype=torch.float64),
            "is_isotonic": torch.tensor([one.kind == "isotonic" for one in curves]),
            "is_platt": torch.tensor([one.kind == "platt" for one in curves]),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)
        self.smallest = _SMALLEST  # TorchScript sees no globals

    def forward(self, predictions: Tensor) -> Tensor:
        """[R, K] float64 → [R, K]: probabilities are calibrated, the rest stays; NaN stays NaN."""
        interpolated = self._interpolated(predictions.t().contiguous()).t()
        certain = predictions.clamp(self.smallest, 1 - self.smallest)
        logit = torch.log(certain) - torch.log1p(-certain)
        scaled = torch.sigmoid(self.slope * logit + self.offset)
        found = torch.where(self.is_isotonic, interpolated, predictions)
        return torch.where(self.is_platt, scaled, found)

    def _interpolated(self, at: Tensor) -> Tensor:
        """[K, R] of the knots' values."""
        upper = torch.searchsorted(self.knots, at).clamp(1, self.knots.shape[1] - 1)
        low, high = self.knots.gather(1, upper - 1), self.knots.gather(1, upper)
        below, above = self.values.gather(1, upper - 1), self.values.gather(1, upper)
        share = ((at - low) / (high - low)).clamp(0.0, 1.0)
        return (below + (above - below) * share).clamp(0.0, 1.0)
