"""One step of Shampoo on stacked blocks: from gradients to search directions.

The order of what happens is part of the algorithm: L2 decay, second moments and factor matrices
from the raw gradient, roots, first moment, direction, grafting, decoupled decay, momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.optim.shampoo.config import DECOUPLED, L2, GroupSettings, Momentum
from recsys.optim.shampoo.factors import precondition, update_factors
from recsys.optim.shampoo.grafting import (
    grafted_directions,
    grafting_scales,
    update_squares,
)
from recsys.optim.shampoo.guards import Guards
from recsys.optim.shampoo.stacks import FACTOR, FIRST_MOMENT, MOMENTUM, ROOT, SQUARE, BlockStack


@dataclass(frozen=True)
class Work:
    """K blocks of one shape that take a step.

    Attributes:
        stack: their state, updated in place.
        gradient: [K, …].
        weights: [K, …]; not read without weight decay.
        due: positions of the blocks whose roots are computed anew.
    """

    stack: BlockStack
    gradient: Tensor
    weights: Tensor | None
    due: Sequence[int]


def search_directions(
    work: Sequence[Work], settings: GroupSettings, step: int, guards: Guards
) -> list[Tensor]:
    """Update the state of some blocks and say where their weights go: W ← W − lr · direction.

    Args:
        work: stacks of blocks that have gradients.
        settings: of the group.
        step: of the group, from 1.
        guards: count failures.

    Returns:
        [K, …] of each stack; may be part of the state and must not be changed.

    Raises:
        TrainingError: roots that cannot be computed.
    """
    if not work:
        return []
    stacks = [one.stack for one in work]
    gradients = [one.gradient for one in work]
    weights = [one.weights for one in work if one.weights is not None]
    decay = settings.weight_decay
    if decay and settings.weight_decay_type == L2:
        gradients = list(torch._foreach_add(gradients, weights, alpha=decay))
    squares = _states(stacks, SQUARE)
    if settings.grafting is not None and squares:
        update_squares(squares, gradients, settings.grafting)
    for one, gradient in zip(work, gradients, strict=True):
        update_factors(one.stack.per_dimension(FACTOR), gradient, settings.betas[1])
        if one.due:
            guards.refresh(one.stack, one.due, settings, step)
    moments, correction = _first_moments(stacks, gradients, settings, step)
    grafted = grafted_directions(moments, squares, settings.grafting, step)
    if step < settings.start:
        directions = list(torch._foreach_mul(grafted, correction))
    else:
        directions = _preconditioned(stacks, moments, grafted, correction, settings)
    if decay and settings.weight_decay_type == DECOUPLED:
        torch._foreach_add_(directions, weights, alpha=decay)
    buffers = _states(stacks, MOMENTUM)
    if settings.momentum is not None and buffers:
        return _with_momentum(directions, buffers, settings.momentum)
    return directions


def _states(stacks: Sequence[BlockStack], name: str) -> list[Tensor]:
    """A tensor of each stack, or nothing where the settings do not ask for it."""
    return [stack.state[name] for stack in stacks if name in stack.state]


def _first_moments(
    stacks: Sequence[BlockStack], gradients: list[Tensor], settings: GroupSettings, step: int
) -> tuple[list[Tensor], float]:
    """Each stack's m ← β1·m + (1 − β1)·G, and what corrects it for its start."""
    beta1 = settings.betas[0]
    moments = _states(stacks, FIRST_MOMENT)
    if not moments:
        return gradients, 1.0
    torch._foreach_lerp_(moments, gradients, 1 - beta1)
    return moments, 1 / (1 - beta1**step) if settings.use_bias_correction else 1.0


def _preconditioned(
    stacks: Sequence[BlockStack],
    moments: list[Tensor],
    grafted: list[Tensor],
    correction: float,
    settings: GroupSettings,
) -> list[Tensor]:
    """The first moments times the roots, as long as the grafted directions where there are any."""
    directions = []
    for stack, moment, own in zip(stacks, moments, grafted, strict=True):
        direction = precondition(moment, stack.per_dimension(ROOT))
        if settings.grafting is None:
            direction.mul_(correction)
        else:
            direction.mul_(grafting_scales(own, direction, correction))
        directions.append(direction)
    return directions


def _with_momentum(
    directions: list[Tensor], buffers: list[Tensor], momentum: Momentum
) -> list[Tensor]:
    """M ← momentum · M + (1 − dampening) · P, and the direction that follows from it."""
    torch._foreach_mul_(buffers, momentum.momentum)
    torch._foreach_add_(buffers, directions, alpha=1 - momentum.dampening)
    if not momentum.use_nesterov:
        return buffers
    if momentum.dampening:
        torch._foreach_mul_(directions, 1 - momentum.dampening)
    torch._foreach_add_(directions, buffers, alpha=momentum.momentum)
    return directions
