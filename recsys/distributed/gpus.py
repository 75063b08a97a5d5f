"""Which GPU a process uses."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import torch
from lightning.fabric.accelerators.cuda import num_cuda_devices
from lightning.pytorch.accelerators.cuda import CUDAAccelerator

from recsys.core.errors import ConfigError

#: Where a process computes: its host, and its GPU's UUID.
Place = tuple[str, str]


def gpu_of(local_rank: int, visible: int) -> int:
    """The number of a process's GPU among those that it sees.

    A launcher that binds a GPU to each task shows it no other, and then it is number 0 whatever the
    process's rank on its node.
    """
    return 0 if visible == 1 else local_rank


class BoundGpus(CUDAAccelerator):
    """Lightning's accelerator, which also knows processes that see one GPU each."""

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> list[int] | None:
        """The GPU of each process of the node."""
        if isinstance(devices, int) and devices > 1 and num_cuda_devices() == 1:
            return [gpu_of(rank, visible=1) for rank in range(devices)]
        return CUDAAccelerator.parse_devices(devices)


def own_place() -> Place:
    """Where this process computes: its current GPU."""
    return socket.gethostname(), str(torch.cuda.get_device_properties().uuid)


def refuse_shared_gpus(places: Sequence[Place]) -> None:
    """Check that no two ranks have one GPU, for which NCCL has no other words than its own.

    Args:
        places: of the ranks, in their order.

    Raises:
        ConfigError: two have.
    """
    first: dict[Place, int] = {}
    for rank, place in enumerate(places):
        if place in first:
            raise ConfigError(
                f"Ranks {first[place]} and {rank} have one GPU ({place[1]} of {place[0]}), and "
                "each needs its own: start no more processes on a node than it has GPUs "
                "(trainer.devices, launcher.processes_per_node), and let every task see all of "
                "the node's GPUs or one of its own (--gpus-per-task=1)."
            )
        first[place] = rank
