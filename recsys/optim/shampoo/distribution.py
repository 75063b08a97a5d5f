"""How search directions reach all ranks, and how the state of a block says who holds it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

from recsys.core.errors import ConfigError, RecsysError, TrainingError
from recsys.optim.shampoo.config import DDPDistribution

#: Powers of two beyond it would leave float32 when a block is scaled by them.
_EXPONENT = 120


class RankGroup(ABC):
    """The ranks that share one copy of the state.

    Attributes:
        size: how many.
        rank: position of this process among them.
    """

    size: int
    rank: int

    @abstractmethod
    def exchange(
        self,
        directions: Sequence[Tensor],
        shapes: Sequence[Sequence[torch.Size]],
        failure: RecsysError | None,
    ) -> list[list[Tensor]]:
        """The directions of all ranks.

        Args:
            directions: of this rank, [K, …] each.
            shapes: of every rank's directions.
            failure: why this rank has no directions.

        Returns:
            The directions of every rank.

        Raises:
            RecsysError: the failure of this rank, or that another one has failed.
        """

    @abstractmethod
    def of_this_rank(self, state: Tensor) -> Tensor:
        """A tensor of the state as what ``state_dict`` shows."""

    @abstractmethod
    def gathered(self, state: object) -> list[object] | None:
        """What every rank of a group gives, on the first; None on the others."""


class OneRank(RankGroup):
    """Every process holds and computes everything."""

    size = 1
    rank = 0

    def exchange(
        self,
        directions: Sequence[Tensor],
        shapes: Sequence[Sequence[torch.Size]],
        failure: RecsysError | None,
    ) -> list[list[Tensor]]:
        """There is nobody to ask."""
        if failure is not None:
            raise failure
        return [list(directions)]

    def of_this_rank(self, state: Tensor) -> Tensor:
        """The tensor itself."""
        return state

    def gathered(self, state: object) -> list[object] | None:
        """What this process has."""
        return [state]


class SharingRanks(RankGroup):
    """Ranks that have a share of the blocks each, and exchange directions in one all-gather.

    Args:
        config: type of what is sent, and how many ranks share a copy of the state.
        device: of the parameters.

    Raises:
        ConfigError: there are no processes, or they cannot be divided into such groups.
    """

    def __init__(self, config: DDPDistribution, device: torch.device) -> None:
        if not dist.is_initialized():
            raise ConfigError(
                "Shampoo: distributed=DDPDistribution(...) needs torch.distributed; call "
                "init_process_group before the optimiser is made, or leave distributed=None."
            )
        world = dist.get_world_size()
        self.size = config.ranks_per_group or world
        if world % self.size:
            raise ConfigError(
                f"Shampoo: ranks_per_group is {self.size}, it must divide the {world} ranks."
            )
        mesh = init_device_mesh(
            device.type, (world // self.size, self.size), mesh_dim_names=("copies", "ranks")
        )
        #: the ranks that hold the same blocks as this one
        self._copies = mesh["copies"]
        self._group = mesh["ranks"].get_group()
        self.rank = mesh["ranks"].get_local_rank()
        self._dtype = config.communication_dtype
        self._device = device

    def exchange(
        self,
        directions: Sequence[Tensor],
        shapes: Sequence[Sequence[torch.Size]],
        failure: RecsysError | None,
    ) -> list[list[Tensor]]:
        """All directions, rounded to the type that was sent, also this rank's own."""
        # a row begins with whether its rank has failed, lest the others wait for it forever
        length = 1 + max(self._length(one) for one in shapes)
        sent = torch.zeros(length, dtype=self._dtype, device=self._device)
        if failure is None:
            self._write(sent[1:], directions, shapes[self.rank])
        else:
            sent[0] = 1
        received = torch.empty(self.size, length, dtype=self._dtype, device=self._device)
        dist.all_gather(list(received.unbind()), sent, group=self._group)
        if failure is not None:
            raise failure
        failed = received[:, 0].nonzero().flatten().tolist()
        if failed:
            raise TrainingError(
                f"Shampoo failed on rank {dist.get_global_rank(self._group, failed[0])}, whose "
                "error says why."
            )
        return [self._read(row[1:], one) for row, one in zip(received, shapes, strict=True)]

    def _write(
        self, row: Tensor, directions: Sequence[Tensor], shapes: Sequence[torch.Size]
    ) -> None:
        for direction, (values, exponents) in zip(
            directions, self._parts(row, shapes), strict=True
        ):
            if exponents is not None:
                largest = direction.flatten(1).abs().amax(dim=1)
                exact = torch.frexp(largest).exponent.clamp(-_EXPONENT, _EXPONENT)
                exponents.copy_(exact)
                direction = torch.ldexp(direction.flatten(1), -exact.unsqueeze(1))
            values.copy_(direction.reshape(values.shape))

    def _length(self, shapes: Sequence[torch.Size]) -> int:
        exponents = sum(shape[0] for shape in shapes) if self._dtype == torch.float16 else 0
        return sum(shape.numel() for shape in shapes) + exponents

    def _parts(
        self, row: Tensor, shapes: Sequence[torch.Size]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Where the directions of a rank and, for float16, the exponents of their blocks lie."""
        parts: list[tuple[Tensor, Tensor | None]] = []
        start = 0
        for shape in shapes:
            values = row[start : start + shape.numel()].view(shape)
            start += shape.numel()
            exponents = None
            if self._dtype == torch.float16:
                exponents = row[start : start + shape[0]]
                start += shape[0]
            parts.append((values, exponents))
        return parts

    def _read(self, row: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
        directions = []
        for values, exponents in self._parts(row, shapes):
            if exponents is not None:
                exact = exponents.to(torch.int32).reshape(-1, *[1] * (values.ndim - 1))
                values = torch.ldexp(values.float(), exact)
            directions.append(values)
        return directions

    def of_this_rank(self, state: Tensor) -> Tensor:
        """A ``DTensor`` on the ranks that hold this block: one of each group."""
        # a DTensor of a view that begins within its storage cannot be copied by copy.deepcopy
        state = torch.from_dlpack(state)
        return DTensor.from_local(state, self._copies, [Replicate()], run_check=False)

    def gathered(self, state: object) -> list[object] | None:
        """What the ranks of the first group have, on the first rank of each group."""
        first = dist.get_global_rank(self._group, 0)
        states: list[object] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(state, states, dst=first, group=self._group)
        return states
