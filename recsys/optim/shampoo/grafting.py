"""Grafting: Shampoo gives the direction of a step, another method its length."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def update_square(square: Tensor, gradient: Tensor, grafting: Grafting) -> None:
    """V ← β2·V + (1 − β2)·G² in place; with β2 = 1 both weights are 1."""
    beta2 = _beta2(grafting)
    if beta2 < 1:
        square.mul_(beta2)
    square.addcmul_(gradient, gradient, value=1 - beta2 if beta2 < 1 else 1.0)


def grafted_direction(
    moment: Tensor, square: Tensor | None, grafting: Grafting | None, step: int
) -> Tensor:
    """The method's own direction, M / (√V + ε); M itself without a second moment.

    Args:
        moment: the gradient's running mean, or the gradient.
        square: V, where the method keeps one.
        grafting: the method.
        step: of the group, from 1; Adam corrects V for it.
    """
    if square is None or grafting is None or isinstance(grafting, SGDGrafting):
        return moment
    root = square.sqrt()
    if isinstance(grafting, AdamGrafting) and grafting.beta2 < 1:
        root.div_(math.sqrt(1 - grafting.beta2**step))
    return torch.div(moment, root.add_(grafting.epsilon), out=root)


def grafting_scales(
    grafted: Sequence[Tensor], directions: Sequence[Tensor], correction: float
) -> list[Tensor]:
    """What the directions of stacks are multiplied by to be as long as the grafted ones.

    Args:
        grafted: [K, …] of each stack, before the first moment's correction.
        directions: [K, …] of each stack, before it too.
        correction: what corrects both for the start of the first moment.

    Returns:
        [K, 1, …]: correction · ‖correction · grafted‖ / (‖correction · direction‖ + 1e-16).
    """
    length = _lengths(grafted).mul_(correction)
    own = _lengths(directions).mul_(correction)
    scales = length.mul_(correction).div_(own.add_(_SMALLEST_NORM))
    parts = scales.split([len(one) for one in directions])
    return [
        part.view(-1, *[1] * (one.ndim - 1)) for part, one in zip(parts, directions, strict=True)
    ]


def _lengths(stacks: Sequence[Tensor]) -> Tensor:
    """Of all blocks of all stacks, one after the other."""
    return torch.cat([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in stacks])


def _beta2(grafting: Grafting) -> float:
    if isinstance(grafting, AdaGradGrafting):
        return 1.0
    assert isinstance(grafting, RMSpropGrafting | AdamGrafting)
    return grafting.beta2
