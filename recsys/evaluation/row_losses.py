"""Loss of each row, the ground of NE, MSE and of comparisons between runs."""

from __future__ import annotations

import torch
from torch import Tensor

#: Probabilities are kept this far from 0 and 1, so that one certain and wrong row costs 27.6 nats
#: and not infinity.
SMALLEST_PROBABILITY = 1e-12


def cross_entropy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """``−[y ln ŷ + (1 − y) ln(1 − ŷ)]`` per element (DV365 equation 7), float64.

    Args:
        probabilities: any shape, in [0, 1]; one that is not finite gives NaN.
        labels: same shape, in [0, 1]; NaN gives NaN.
    """
    certain = finite_or_nan(probabilities).clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    targets = labels.double()
    return -(targets * certain.log() + (1 - targets) * torch.log1p(-certain))


def entropy(rates: Tensor) -> Tensor:
    """``−[p ln p + (1 − p) ln(1 − p)]`` per element, the denominator of equation 12, float64."""
    rates = rates.double()
    return -(torch.xlogy(rates, rates) + torch.xlogy(1 - rates, 1 - rates))


def squared_error(predictions: Tensor, labels: Tensor) -> Tensor:
    """``(z − ẑ)²`` per element, float64; NaN where the label is NaN or a prediction not finite."""
    return (finite_or_nan(predictions) - labels.double()).square()


def finite_or_nan(predictions: Tensor) -> Tensor:
    """Predictions in float64, NaN where they are infinite: a model that overflows says nothing."""
    exact = predictions.double()
    return exact.where(exact.isfinite(), torch.nan)


def observed_sum(values: Tensor, labels: Tensor) -> Tensor:
    """Sum over the rows whose label is observed, [R, K] → [K].

    NaN where one of these values is; what stands beside a label that is NaN does not count.
    """
    return values.masked_fill(labels.isnan(), 0).sum(dim=0)
