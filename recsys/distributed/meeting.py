"""Where processes of a launcher meet, without torch's default group.

In a default group whatever asks torch whether it is distributed exchanges numbers of its own
accord, as metrics and losses of a training do; here nothing is exchanged but what is meant.
"""

from __future__ import annotations

import os
import pickle
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from recsys.core.errors import ConfigError, RecsysError
from recsys.distributed.processes import launcher


def meet(count: int, wait: timedelta) -> tuple[dist.TCPStore, int]:
    """The store of the launcher's processes, and the rank of this one.

    Args:
        count: of the processes that there must be.
        wait: for the first of them, and for what is read from the store.

    Raises:
        ConfigError: the launcher has started another number of processes.
        RecsysError: the first process does not answer.
    """
    place = launcher()
    rank, world = place.global_rank(), place.world_size()
    if world != count:
        raise ConfigError(
            f"{world} process(es) were started, but processes is {count}; have the launcher start "
            "as many."
        )
    try:
        store = dist.TCPStore(
            place.main_address,
            place.main_port,
            world,
            is_master=rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
            timeout=wait,
            wait_for_workers=False,
            multi_tenant=True,
        )
    except RuntimeError as error:
        raise RecsysError(
            f"{place.main_address}, the first node, does not answer at port {place.main_port} for "
            f"{wait.total_seconds():g} s; is it up, and may the others reach it?"
        ) from error
    return store, rank


def join(host: str, port: int, count: int, wait: timedelta) -> dist.TCPStore:
    """The store of processes that no launcher has started, at the first of them.

    Args:
        host: of the first.
        port: of the store; 0 makes it here.
        count: of the processes.
        wait: for what is read from the store.
    """
    first = port == 0
    return dist.TCPStore(host, port, count, first, wait, wait_for_workers=False)


class LeftAloneError(RecsysError):
    """Another process, which says why, has ended."""


class Gathering:
    """Processes that tell each other what they have.

    Args:
        store: at which they meet.
        rank: of this one.
        count: of all.
        wait: for the slowest.
    """

    def __init__(self, store: dist.Store, rank: int, count: int, wait: timedelta) -> None:
        self._rank = rank
        self._count = count
        own = dist.PrefixStore("gathering", store)
        self._group: Any = dist.ProcessGroupGloo(own, rank, count, wait)  # its stub lacks methods

    def __call__(self, value: Any) -> list[Any]:
        """What every process has, by rank.

        Raises:
            LeftAloneError: a process has ended.
        """
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(size) for size in self._of_all(torch.tensor([len(own)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        parts = self._of_all(padded)
        return [
            pickle.loads(part[:size].numpy().tobytes())
            for part, size in zip(parts, sizes, strict=True)
        ]

    def end(self) -> None:
        """Let the others see that this one gathers no more, also where its process lives on."""
        self._group = None

    def _of_all(self, own: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.empty_like(own) for _ in range(self._count)]
        try:
            self._group.allgather([found], [own]).wait()
        except RuntimeError as error:  # gloo's word for a connection that is gone
            raise LeftAloneError(
                f"Process {self._rank} waits for others, of which one has ended; that one has said "
                "why."
            ) from error
        return found
