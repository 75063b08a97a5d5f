"""A parameter group at work: its blocks, who has which, and this rank's state of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.optim.shampoo.assignment import RootSchedule, assign, block_cost
from recsys.optim.shampoo.blocks import Block, blocks_of, merged_shape
from recsys.optim.shampoo.config import GroupSettings
from recsys.optim.shampoo.guards import Guards
from recsys.optim.shampoo.parameters import add_whole, can_be_viewed, whole
from recsys.optim.shampoo.stacks import new_stack
from recsys.optim.shampoo.update import Work, search_directions


class ParameterGroup:
    """The blocks of a group on all ranks, and the state of this rank's.

    Args:
        parameters: of the group.
        names: of the parameters, for errors.
        settings: of the group.
        loads: work of each rank so far; the group's blocks are added.
        rank: this rank's position in ``loads``.
        max_failures: in a row, as of :class:`Guards`.

    Attributes:
        step: steps done in which some parameter had a gradient, a tensor on the CPU.
        guards: failures so far.
        blocks: of each rank, lists of blocks of one shape.
        stacks: the state of this rank's blocks.
        direction_shapes: of each rank's search directions: [K, …] for each list of blocks.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        names: Sequence[str],
        settings: GroupSettings,
        loads: list[float],
        rank: int,
        max_failures: int,
    ) -> None:
        self.parameters = parameters
        self.names = names
        # whatever the default type is: bfloat16 counts to 256
        self.step = torch.tensor(0.0, dtype=torch.float32, device="cpu")
        self.guards = Guards(names, max_failures)
        largest = settings.max_preconditioner_dim
        self._shapes = [merged_shape(one.shape, largest) for one in parameters]
        blocks = [
            block
            for position, one in enumerate(parameters)
            for block in blocks_of(position, one.shape, largest)
        ]
        owners = assign([block_cost(block, settings) for block in blocks], loads)
        self.blocks = [
            self._by_shape(b for b, owner in zip(blocks, owners, strict=True) if owner == one)
            for one in range(len(loads))
        ]
        own = self.blocks[rank]
        self.stacks = [new_stack(alike, settings, *self._kind(alike[0])) for alike in own]
        self._schedule = RootSchedule(own)
        self.direction_shapes = [
            [torch.Size((len(alike), *alike[0].shape)) for alike in stacks]
            for stacks in self.blocks
        ]

    def _kind(self, block: Block) -> tuple[torch.dtype, torch.device]:
        parameter = self.parameters[block.parameter]
        return parameter.dtype, parameter.device

    def _by_shape(self, blocks: Iterable[Block]) -> list[list[Block]]:
        """Blocks of one shape, type and device each."""
        stacks: dict[object, list[Block]] = {}
        for block in blocks:
            stacks.setdefault((block.shape, *self._kind(block)), []).append(block)
        return list(stacks.values())

    def directions(self, gradients: Mapping[int, Tensor], settings: GroupSettings) -> list[Tensor]:
        """Update the state of this rank's blocks.

        Args:
            gradients: as :meth:`gradients` gives them.
            settings: of the group.

        Returns:
            [K, …] of each stack; zero where a block has no gradient. Not to be changed.

        Raises:
            TrainingError: roots that cannot be computed.
        """
        if gradients:
            self.step += 1
        weights = self._weights(gradients) if settings.weight_decay else {}
        step = int(self.step)
        due = self._schedule.due(settings, step)
        rows = [stack.rows_of(gradients) for stack in self.stacks]
        parts = [stack.only(some) for stack, some in zip(self.stacks, rows, strict=True)]
        work = [
            Work(
                part,
                part.stacked(gradients),
                part.stacked(weights) if weights else None,
                [position for position, row in enumerate(some) if row in turn],
            )
            for part, some, turn in zip(parts, rows, map(set, due), strict=True)
            if some
        ]
        found = iter(search_directions(work, settings, step, self.guards))
        directions = []
        for stack, some, part in zip(self.stacks, rows, parts, strict=True):
            stack.take_back(some, part)
            directions.append(stack.spread(some, next(found) if some else None))
        return directions

    def gradients(self) -> dict[int, Tensor]:
        """Whole finite gradients in merged shapes, by position of the parameter that has one.

        Raises:
            ConfigError: a sparse gradient.
            TrainingError: a gradient was not finite too often in a row.
        """
        gradients = {}
        for position, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if parameter.grad.layout != torch.strided:
                raise ConfigError(
                    f"Shampoo: the gradient of {self.names[position]} is sparse; Shampoo takes "
                    "dense gradients alone. Leave embedding tables to TorchRec's fused optimisers "
                    "or torch.optim.SparseAdam, or make the embedding with sparse=False."
                )
            gradients[position] = whole(parameter.grad, self._shapes[position])
        return self.guards.finite(gradients)

    def _weights(self, positions: Iterable[int]) -> dict[int, Tensor]:
        return {one: whole(self.parameters[one], self._shapes[one]) for one in positions}

    def apply(self, directions: Sequence[Sequence[Tensor]], lr: float) -> None:
        """W ← W − lr · direction.

        Args:
            directions: of every rank, [K, …] each.
            lr: learning rate.
        """
        views, updates = [], []
        pieces: dict[int, list[tuple[Block, Tensor]]] = {}
        for block, direction in self._by_block(directions):
            parameter = self.parameters[block.parameter]
            if can_be_viewed(parameter):
                views.append(block.of(parameter.view(self._shapes[block.parameter])))
                updates.append(direction)
            else:
                pieces.setdefault(block.parameter, []).append((block, direction))
        if views:
            torch._foreach_add_(views, updates, alpha=-lr)
        for position, some in pieces.items():
            update = some[0][1].new_empty(self._shapes[position])
            for block, direction in some:
                block.of(update).copy_(direction)
            parameter = self.parameters[position]
            add_whole(parameter, update.view(parameter.shape), -lr)

    def _by_block(self, directions: Sequence[Sequence[Tensor]]) -> Iterable[tuple[Block, Tensor]]:
        for stacks, tensors in zip(self.blocks, directions, strict=True):
            for alike, tensor in zip(stacks, tensors, strict=True):
                yield from zip(alike, tensor.unbind(), strict=True)
