"""One step of Shampoo on stacked blocks: from gradients to search directions.

The order of what happens is part of the algorithm: L2 decay, second moments and factor matrices
from the raw gradient, roots, first moment, direction, grafting, decoupled decay, momentum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.optim.shampoo.config import Momentum
from recsys.optim.shampoo.factors import precondition, update_factors
from recsys.optim.shampoo.grafting import grafted_direction, grafting_scales, update_square
from recsys.optim.shampoo.guards import Guards
from recsys.optim.shampoo.settings import DECOUPLED, L2, GroupSettings
from recsys.optim.shampoo.stacks import FACTOR, FIRST_MOMENT, MOMENTUM, ROOT, SQUARE, BlockSet


def search_directions(
    blocks: BlockSet,
    weights: list[Tensor] | None,
    due: Sequence[Sequence[int]],
    settings: GroupSettings,
    step: int,
    guards: Guards,
) -> None:
    """Update the state of some blocks and say where their weights go: W ← W − lr · direction.

    Args:
        blocks: their buffer has the gradients, and the directions afterwards.
        weights: of each block, as the buffer's targets; None without weight decay.
        due: of each stack, positions of the blocks whose roots are computed anew.
        settings: of the group.
        step: of the group, from 1.
        guards: count failures.

    Raises:
        TrainingError: roots that cannot be computed.
    """
    gradient, square = blocks.buffer, blocks.flat.get(SQUARE)
    decay = settings.weight_decay
    if weights is not None and settings.weight_decay_type == L2:
        torch._foreach_add_(blocks.targets, weights, alpha=decay)
    if settings.grafting is not None and square is not None:
        update_square(square, gradient, settings.grafting)
    for stack, part, rows in zip(blocks.stacks, blocks.directions, due, strict=True):
        update_factors(stack.per_dimension(FACTOR), part, settings.betas[1])
        if rows:
            guards.refresh(stack, rows, settings, step)
    moment, correction = _first_moment(blocks, settings, step)
    grafted = grafted_direction(moment, square, settings.grafting, step)
    if step < settings.start:
        torch.mul(grafted, correction, out=blocks.buffer)
    else:
        _precondition(blocks, moment, grafted, correction, settings)
    if weights is not None and settings.weight_decay_type == DECOUPLED:
        torch._foreach_add_(blocks.targets, weights, alpha=decay)
    buffer = blocks.flat.get(MOMENTUM)
    if settings.momentum is not None and buffer is not None:
        _add_momentum(blocks.buffer, buffer, settings.momentum)


def _first_moment(blocks: BlockSet, settings: GroupSettings, step: int) -> tuple[Tensor, float]:
    """The mean, M ← β1·M + (1 − β1)·G [E], and what corrects it for its start."""
    beta1 = settings.betas[0]
    moment = blocks.flat.get(FIRST_MOMENT)
    if moment is None:
        return blocks.buffer, 1.0
    moment.lerp_(blocks.buffer, 1 - beta1)
    return moment, 1 / (1 - beta1**step) if settings.use_bias_correction else 1.0


def _precondition(
    blocks: BlockSet, moment: Tensor, grafted: Tensor, correction: float, settings: GroupSettings
) -> None:
    """The first moment times the roots, as long as the grafted direction where there is one."""
    found = [
        precondition(part, stack.per_dimension(ROOT))
        for stack, part in zip(blocks.stacks, blocks.by_stack(moment), strict=True)
    ]
    scales: Sequence[Tensor | float] = [correction] * len(found)
    if settings.grafting is not None:
        scales = grafting_scales(blocks.by_stack(grafted), found, correction)
    for direction, scale, target in zip(found, scales, blocks.directions, strict=True):
        torch.mul(direction, scale, out=target)


def _add_momentum(direction: Tensor, buffer: Tensor, momentum: Momentum) -> None:
    """M ← momentum · M + (1 − dampening) · P, and the direction that follows from it, in place."""
    buffer.mul_(momentum.momentum).add_(direction, alpha=1 - momentum.dampening)
    if not momentum.use_nesterov:
        direction.copy_(buffer)
        return
    if momentum.dampening:
        direction.mul_(1 - momentum.dampening)
    direction.add_(buffer, alpha=momentum.momentum)
