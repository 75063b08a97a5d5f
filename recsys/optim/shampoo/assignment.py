"""Who works on which blocks, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recsys.optim.shampoo.blocks import WeightBlock
from recsys.optim.shampoo.settings import GroupSettings

#: Multiplications of an eigendecomposition of width d over d³, about.
_EIGENDECOMPOSITION = 10


def block_cost(block: WeightBlock, settings: GroupSettings) -> float:
    """Multiplications of a block per step: factor matrices, preconditioning, its share of roots."""
    products = 2 * math.prod(block.shape) * sum(block.shape)
    roots = _EIGENDECOMPOSITION * sum(size**3 for size in block.shape)
    return products + roots / settings.precondition_frequency


def assign(costs: Sequence[float], loads: list[float]) -> list[int]:
    """Give each piece of work to who has least so far, the largest first.

    Args:
        costs: of the pieces.
        loads: of the workers so far; the pieces are added.

    Returns:
        The worker of each piece; the same on every rank.
    """
    workers = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda piece: (-costs[piece], piece)):
        worker = min(range(len(loads)), key=lambda one: (loads[one], one))
        workers[piece] = worker
        loads[worker] += costs[piece]
    return workers


class RootSchedule:
    """At which steps the roots of blocks are computed anew.

    All at once every ``precondition_frequency`` steps from ``start_preconditioning_step`` on, and
    at that step itself. Spread, every step does the share of the blocks whose turn it is,
    beginning so early that each block has its roots when preconditioning starts.

    Args:
        stacks: the blocks of each stack.
    """

    def __init__(self, stacks: Sequence[Sequence[WeightBlock]]) -> None:
        self._stacks = stacks
        self._frequency = 0
        self._turns: list[list[int]] = []

    def due(self, settings: GroupSettings, step: int) -> list[list[int]]:
        """Positions of the blocks of each stack that are due at a step, which counts from 1."""
        frequency = settings.precondition_frequency
        turn = step % frequency
        if settings.spread_root_inverse:
            if step <= settings.start - frequency:
                return [[] for _ in self._stacks]
            return [
                [row for row, one in enumerate(turns) if one == turn]
                for turns in self._turns_of(settings)
            ]
        now = step == settings.start or (step > settings.start and turn == 0)
        return [list(range(len(blocks))) if now else [] for blocks in self._stacks]

    def _turns_of(self, settings: GroupSettings) -> list[list[int]]:
        """The turn of every block; dealt anew where a loaded state changed the frequency."""
        if self._frequency != settings.precondition_frequency:
            self._frequency = settings.precondition_frequency
            costs = [block_cost(block, settings) for blocks in self._stacks for block in blocks]
            turns = iter(assign(costs, [0.0] * self._frequency))
            self._turns = [[next(turns) for _ in blocks] for blocks in self._stacks]
        return self._turns
