"""A parameter group at work: its blocks, who has which, and this rank's state of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.optim.shampoo.assignment import RootSchedule, assign, block_cost
from recsys.optim.shampoo.blocks import WeightBlock, blocks_of
from recsys.optim.shampoo.guards import Guards
from recsys.optim.shampoo.overdue import Overdue
from recsys.optim.shampoo.parameters import add_whole, can_be_viewed, whole
from recsys.optim.shampoo.settings import GroupSettings
from recsys.optim.shampoo.stacks import OVERDUE, BlockStack, new_set
from recsys.optim.shampoo.update import search_directions

#: Type and device of search directions.
_Kind = tuple[torch.dtype, torch.device]


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
        sets: this rank's blocks with their state.
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
        blocks = [
            block
            for position, one in enumerate(parameters)
            for block in blocks_of(position, one.shape, largest)
        ]
        owners = assign([block_cost(block, settings) for block in blocks], loads)
        by_rank = [
            self._by_kind(b for b, owner in zip(blocks, owners, strict=True) if owner == one)
            for one in range(len(loads))
        ]
        self.blocks = [[alike for one in kinds.values() for alike in one] for kinds in by_rank]
        self.sets = [
            new_set(alike, settings, torch.empty(0, dtype=dtype, device=device))
            for (dtype, device), alike in by_rank[rank].items()
        ]
        self._schedule = RootSchedule(self.blocks[rank])
        self._overdue = Overdue([stack.state[OVERDUE] for stack in self.stacks])
        self.direction_shapes = [
            [torch.Size((len(alike), *alike[0].shape)) for alike in stacks]
            for stacks in self.blocks
        ]

    @property
    def stacks(self) -> list[BlockStack]:
        """This rank's blocks of one shape each, with their state."""
        return [stack for one in self.sets for stack in one.stacks]

    def _by_kind(self, blocks: Iterable[WeightBlock]) -> dict[_Kind, list[list[WeightBlock]]]:
        """Blocks of one shape each, by the type and device of their directions."""
        kinds: dict[_Kind, dict[tuple[int, ...], list[WeightBlock]]] = {}
        for block in blocks:
            parameter = self.parameters[block.parameter]
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            shapes = kinds.setdefault((dtype, parameter.device), {})
            shapes.setdefault(block.shape, []).append(block)
        return {kind: list(shapes.values()) for kind, shapes in kinds.items()}

    def loaded(self) -> None:
        """Follow a state that was loaded."""
        self._overdue.read()

    def directions(self, gradients: Mapping[int, Tensor], settings: GroupSettings) -> list[Tensor]:
        """Update the state of this rank's blocks.

        Args:
            gradients: as :meth:`gradients` gives them.
            settings: of the group.

        Returns:
            [K, …] of each stack; zero where a block has no gradient. Good until the next step.

        Raises:
            TrainingError: roots that cannot be computed.
        """
        stacks = self.stacks
        rows = [_rows(stack.blocks, gradients, len(self.parameters)) for stack in stacks]
        if gradients:
            self.step += 1
            step = int(self.step)
            due = iter(self._overdue.taken(self._schedule.due(settings, step), rows))
            weights = None
            if settings.weight_decay:
                weights = {one: whole(self.parameters[one]) for one in gradients}
        present = iter(rows)
        for one in self.sets:
            some = list(islice(present, len(one.stacks)))
            complete = all(
                len(a) == len(stack.blocks) for a, stack in zip(some, one.stacks, strict=True)
            )
            part = one if complete else one.only(some)
            if part is not None:
                torch._foreach_copy_(part.targets, part.blocks_of(gradients))
                turns = [turn for turn, a in zip(islice(due, len(some)), some, strict=True) if a]
                decayed = None if weights is None else part.blocks_of(weights)
                search_directions(part, decayed, turns, settings, step, self.guards)
            if not complete:
                one.take_back(some, part)
        return [direction for one in self.sets for direction in one.directions]

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
            gradients[position] = whole(parameter.grad)
        return self.guards.finite(gradients)

    def apply(self, directions: Sequence[Sequence[Tensor]], lr: float) -> None:
        """W ← W − lr · direction.

        Args:
            directions: of every rank, [K, …] each.
            lr: learning rate.
        """
        views, updates = [], []
        pieces: dict[int, list[tuple[WeightBlock, Tensor]]] = {}
        for block, direction in self._by_block(directions):
            parameter = self.parameters[block.parameter]
            if can_be_viewed(parameter, block):
                views.append(block.of(parameter))
                updates.append(direction.view(block.own_shape))
            else:
                pieces.setdefault(block.parameter, []).append((block, direction))
        if views:
            torch._foreach_add_(views, updates, alpha=-lr)
        for position, some in pieces.items():
            parameter = self.parameters[position]
            update = some[0][1].new_empty(parameter.shape)
            for block, direction in some:
                block.of(update).copy_(direction.view(block.own_shape))
            add_whole(parameter, update, -lr)

    def _by_block(
        self, directions: Sequence[Sequence[Tensor]]
    ) -> Iterable[tuple[WeightBlock, Tensor]]:
        for stacks, tensors in zip(self.blocks, directions, strict=True):
            for alike, tensor in zip(stacks, tensors, strict=True):
                yield from zip(alike, tensor.unbind(), strict=True)


def _rows(
    blocks: Sequence[WeightBlock], gradients: Mapping[int, Tensor], every: int
) -> Sequence[int]:
    """Positions of the blocks that have a gradient."""
    if len(gradients) == every:
        return range(len(blocks))
    return [row for row, block in enumerate(blocks) if block.parameter in gradients]
