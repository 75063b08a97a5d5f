"""The state of Shampoo: blocks of one shape lie in one tensor, so that work is batched."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.optim.shampoo.blocks import Block
from recsys.optim.shampoo.config import GroupSettings, QRTracking
from recsys.optim.shampoo.grafting import has_square

FIRST_MOMENT = "first_moment"
SQUARE = "grafting_square"
MOMENTUM = "momentum_buffer"
FACTOR = "factor"
ROOT = "inverse_root"
EIGENVECTORS = "eigenvectors"


@dataclass(frozen=True)
class BlockStack:
    """K blocks of one shape with their state.

    Attributes:
        blocks: K of them, of shape (d₁, …, dₖ); … below.
        dtype: of the search directions and their averages: the parameters', at least float32.
        state: tensors whose first dimension is the block: ``first_moment``, ``grafting_square``
            and ``momentum_buffer`` [K, …] where the settings ask for them; ``factor_i``,
            ``inverse_root_i`` and, where eigenvectors are tracked, ``eigenvectors_i`` [K, dᵢ, dᵢ].
    """

    blocks: Sequence[Block]
    dtype: torch.dtype
    state: dict[str, Tensor]

    @property
    def order(self) -> int:
        """Number of dimensions of a block."""
        return len(self.blocks[0].shape)

    def per_dimension(self, name: str) -> list[Tensor]:
        """The tensors of a name that every dimension has."""
        return [self.state[f"{name}_{dimension}"] for dimension in range(self.order)]

    def rows_of(self, parameters: Container[int]) -> list[int]:
        """Positions of the blocks that belong to some parameters of the group."""
        return [row for row, block in enumerate(self.blocks) if block.parameter in parameters]

    def stacked(self, wholes: Mapping[int, Tensor]) -> Tensor:
        """The blocks of what has the parameters' merged shapes: [K, …].

        Args:
            wholes: parameters or gradients, by position in the group.
        """
        pieces = [block.of(wholes[block.parameter]) for block in self.blocks]
        if len(pieces) == 1:  # often a whole matrix, which needs no copy
            return pieces[0].unsqueeze(0).to(self.dtype)
        return torch.stack(pieces).to(self.dtype)

    def only(self, rows: Sequence[int]) -> BlockStack:
        """Some blocks: a copy, or the stack itself where they are all of it."""
        if len(rows) == len(self.blocks):
            return self
        state = {name: tensor[rows] for name, tensor in self.state.items()}
        return BlockStack([self.blocks[row] for row in rows], self.dtype, state)

    def take_back(self, rows: Sequence[int], part: BlockStack) -> None:
        """Write back what became of some blocks."""
        if part is not self:
            for name, tensor in self.state.items():
                tensor[rows] = part.state[name]

    def spread(self, rows: Sequence[int], part: Tensor | None) -> Tensor:
        """What some blocks have, [len(rows), …], and zero for the others."""
        if part is not None and len(rows) == len(self.blocks):
            return part
        device = next(iter(self.state.values())).device
        every = torch.zeros(
            len(self.blocks), *self.blocks[0].shape, dtype=self.dtype, device=device
        )
        if part is not None:
            every[rows] = part
        return every


def new_stack(
    blocks: Sequence[Block], settings: GroupSettings, dtype: torch.dtype, device: torch.device
) -> BlockStack:
    """State of K blocks before the first step.

    Args:
        blocks: of one shape.
        settings: of their group.
        dtype: of their parameters.
        device: of their parameters.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    shape = (len(blocks), *blocks[0].shape)
    names = {
        FIRST_MOMENT: settings.betas[0] > 0,
        SQUARE: has_square(settings.grafting),
        MOMENTUM: settings.momentum is not None and settings.momentum.momentum > 0,
    }
    state = {
        name: torch.zeros(shape, dtype=dtype, device=device) for name, kept in names.items() if kept
    }
    for dimension, size in enumerate(blocks[0].shape):
        square = (len(blocks), size, size)
        factor_dtype = settings.preconditioner_dtype
        state[f"{FACTOR}_{dimension}"] = torch.zeros(square, dtype=factor_dtype, device=device)
        # until it is computed, a root changes nothing
        identity = torch.eye(size, dtype=dtype, device=device)
        state[f"{ROOT}_{dimension}"] = identity.repeat(len(blocks), 1, 1)
        if isinstance(settings.root_inverse, QRTracking):
            eigenvectors = torch.zeros(square, dtype=factor_dtype, device=device)
            state[f"{EIGENVECTORS}_{dimension}"] = eigenvectors
    return BlockStack(blocks, dtype, state)
