"""The state of Shampoo: blocks of one shape lie in one tensor, so that work is batched.

What is done number by number needs no shapes: it lies in one flat tensor for all blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.optim.shampoo.blocks import WeightBlock
from recsys.optim.shampoo.config import QRTracking
from recsys.optim.shampoo.grafting import has_square
from recsys.optim.shampoo.settings import GroupSettings

FIRST_MOMENT = "first_moment"
SQUARE = "grafting_square"
MOMENTUM = "momentum_buffer"
FACTOR = "factor"
ROOT = "inverse_root"
EIGENVECTORS = "eigenvectors"
OVERDUE = "overdue"


@dataclass(frozen=True)
class BlockStack:
    """K blocks of one shape with their state.

    Attributes:
        blocks: K of them, of shape (d₁, …, dₖ); … below.
        state: tensors whose first dimension is the block: ``first_moment``, ``grafting_square``
            and ``momentum_buffer`` [K, …] where the settings ask for them, views of a
            :class:`BlockSet`; ``factor_i``, ``inverse_root_i`` and, where eigenvectors are tracked,
            ``eigenvectors_i`` [K, dᵢ, dᵢ]; ``overdue`` [K, 1], 1 where roots were due while the
            block had no gradient.
    """

    blocks: Sequence[WeightBlock]
    state: dict[str, Tensor]

    @property
    def order(self) -> int:
        """Number of dimensions of a block."""
        return len(self.blocks[0].shape)

    @property
    def shape(self) -> torch.Size:
        """[K, …]."""
        return torch.Size((len(self.blocks), *self.blocks[0].shape))

    def per_dimension(self, name: str) -> list[Tensor]:
        """The tensors of a name that every dimension has."""
        return [self.state[f"{name}_{dimension}"] for dimension in range(self.order)]

    def only(self, rows: Sequence[int]) -> BlockStack:
        """Some blocks: a copy, or the stack itself where they are all of it."""
        if len(rows) == len(self.blocks):
            return self
        state = {name: tensor[rows] for name, tensor in self.state.items()}
        return BlockStack([self.blocks[row] for row in rows], state)


class BlockSet:
    """Stacks of one type and device.

    Args:
        stacks: at least one.
        flat: ``first_moment``, ``grafting_square`` and ``momentum_buffer`` of all blocks, one stack
            after the other, [E] each, where the settings ask for them.
        like: an empty tensor of the type and device of the search directions.

    Attributes:
        stacks: as above.
        flat: as above.
        buffer: [E], the gradients of all blocks, and after a step their search directions.
        directions: the buffer as [K, …] of each stack.
        targets: the buffer as one tensor per block, of the shape that ``WeightBlock.of`` gives.
    """

    def __init__(self, stacks: Sequence[BlockStack], flat: dict[str, Tensor], like: Tensor) -> None:
        self.stacks = stacks
        self.flat = flat
        self._sizes = [stack.shape.numel() for stack in stacks]
        self.buffer = like.new_zeros(sum(self._sizes))
        self.directions = self.by_stack(self.buffer)
        self._blocks = [block for stack in stacks for block in stack.blocks]
        pieces = (one for some in self.directions for one in some.unbind())
        self.targets = [
            one.view(block.own_shape) for one, block in zip(pieces, self._blocks, strict=True)
        ]

    def by_stack(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor [E] as [K, …] of each stack."""
        parts = flat.split(self._sizes)
        return [part.view(stack.shape) for part, stack in zip(parts, self.stacks, strict=True)]

    def blocks_of(self, wholes: Mapping[int, Tensor]) -> list[Tensor]:
        """The blocks of parameters or gradients, by position in the group; as the targets."""
        return [block.of(wholes[block.parameter]) for block in self._blocks]

    def only(self, rows: Sequence[Sequence[int]]) -> BlockSet | None:
        """Some blocks of each stack, in a set of their own; None where there are none."""
        stacks = [stack.only(some) for stack, some in zip(self.stacks, rows, strict=True) if some]
        if not stacks:
            return None
        flat = {
            name: torch.cat([stack.state[name].flatten() for stack in stacks]) for name in self.flat
        }
        return BlockSet(stacks, flat, self.buffer[:0])

    def take_back(self, rows: Sequence[Sequence[int]], part: BlockSet | None) -> None:
        """Write back what became of some blocks; the directions of the others are zero."""
        self.buffer.zero_()
        if part is None:
            return
        present = [number for number, some in enumerate(rows) if some]
        flat = {name: part.by_stack(tensor) for name, tensor in part.flat.items()}
        for position, number in enumerate(present):
            stack, some, taken = self.stacks[number], rows[number], part.stacks[position]
            self.directions[number][some] = part.directions[position]
            for name, tensor in stack.state.items():
                if name in flat:
                    tensor[some] = flat[name][position]
                elif taken is not stack:
                    tensor[some] = taken.state[name]


def new_set(
    blocks: Sequence[Sequence[WeightBlock]], settings: GroupSettings, like: Tensor
) -> BlockSet:
    """State of blocks before the first step.

    Args:
        blocks: lists of blocks of one shape.
        settings: of their group.
        like: an empty tensor of the type and device of the search directions.
    """
    names = {
        FIRST_MOMENT: settings.betas[0] > 0,
        SQUARE: has_square(settings.grafting),
        MOMENTUM: settings.momentum is not None and settings.momentum.momentum > 0,
    }
    stacks = [BlockStack(alike, _matrices(alike, settings, like)) for alike in blocks]
    numbers = sum(stack.shape.numel() for stack in stacks)
    flat = {name: like.new_zeros(numbers) for name, kept in names.items() if kept}
    every = BlockSet(stacks, flat, like)
    for name, tensor in flat.items():
        for stack, part in zip(stacks, every.by_stack(tensor), strict=True):
            stack.state[name] = part
    return every


def _matrices(
    blocks: Sequence[WeightBlock], settings: GroupSettings, like: Tensor
) -> dict[str, Tensor]:
    state = {OVERDUE: like.new_zeros(len(blocks), 1)}
    for dimension, size in enumerate(blocks[0].shape):
        square = (len(blocks), size, size)
        factor = like.new_zeros(square, dtype=settings.preconditioner_dtype)
        state[f"{FACTOR}_{dimension}"] = factor
        # until it is computed, a root changes nothing
        identity = torch.eye(size, dtype=like.dtype, device=like.device)
        state[f"{ROOT}_{dimension}"] = identity.repeat(len(blocks), 1, 1)
        if isinstance(settings.root_inverse, QRTracking):
            state[f"{EIGENVECTORS}_{dimension}"] = torch.zeros_like(factor)
    return state
