"""Grafting: Shampoo gives the direction of a step, another method its length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recsys.optim.shampoo.config import (
    AdaGradGrafting,
    AdamGrafting,
    Grafting,
    RMSpropGrafting,
    SGDGrafting,
)

#: Keeps a block whose direction is zero from dividing by zero.
_SMALLEST_NORM = 1e-16


def has_square(grafting: Grafting | None) -> bool:
    """Whether a method keeps a second moment."""
    return grafting is not None and not isinstance(grafting, SGDGrafting)


def update_squares(squares: list[Tensor], gradients: list[Tensor], grafting: Grafting) -> None:
    """V ← β2·V + (1 − β2)·G² in place; with β2 = 1 both weights are 1."""
    beta2 = _beta2(grafting)
    if beta2 < 1:
        torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2 if beta2 < 1 else 1.0)


def grafted_directions(
    moments: list[Tensor], squares: list[Tensor], grafting: Grafting | None, step: int
) -> list[Tensor]:
    """The method's own directions, M / (√V + ε); M itself without a second moment.

    Args:
        moments: the gradients' running mean, or the gradients.
        squares: V, where the method keeps one.
        grafting: the method.
        step: of the group, from 1; Adam corrects V for it.
    """
    if grafting is None or isinstance(grafting, SGDGrafting):
        return moments
    roots = torch._foreach_sqrt(squares)
    if isinstance(grafting, AdamGrafting) and grafting.beta2 < 1:
        torch._foreach_div_(roots, math.sqrt(1 - grafting.beta2**step))
    torch._foreach_add_(roots, grafting.epsilon)
    return list(torch._foreach_div(moments, roots))


def grafting_scales(grafted: Tensor, directions: Tensor, correction: float) -> Tensor:
    """What K directions are multiplied by to be as long as the grafted ones.

    Args:
        grafted: [K, …], before the first moment's correction.
        directions: [K, …], before it too.
        correction: what corrects both for the start of the first moment.

    Returns:
        [K, 1, …]: correction · ‖correction · grafted‖ / (‖correction · direction‖ + 1e-16).
    """
    length = torch.linalg.vector_norm(grafted.flatten(1), dim=1).mul_(correction)
    own = torch.linalg.vector_norm(directions.flatten(1), dim=1).mul_(correction)
    scales = length.mul_(correction).div_(own.add_(_SMALLEST_NORM))
    return scales.reshape(-1, *[1] * (directions.ndim - 1))


def _beta2(grafting: Grafting) -> float:
    if isinstance(grafting, AdaGradGrafting):
        return 1.0
    assert isinstance(grafting, RMSpropGrafting | AdamGrafting)
    return grafting.beta2
