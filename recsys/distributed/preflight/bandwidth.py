"""How fast processes send to each other, in pairs and all at once.

Legend: n things that meet in pairs, P processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.distributed.preflight.node import Measured

#: Of so many times the fastest counts: the first makes connections.
_TIMES = 3
#: Rounds in which a node meets another: with many nodes it meets some.
_MOST_ROUNDS = 8


def pairs_of_round(number: int, count: int) -> list[tuple[int, int]]:
    """Who meets whom in a round of a tournament: of n − 1 rounds (n of odd n) everyone meets all.

    The first stays where it is, the others move on by one place a round (the circle method); of
    an odd number one pauses.

    >>> [pairs_of_round(number, 4) for number in range(3)]
    [[(0, 3), (1, 2)], [(0, 2), (1, 3)], [(0, 1), (2, 3)]]
    """
    even = count + count % 2
    others = [1 + (place - number) % (even - 1) for place in range(even - 1)]
    places = [0, *others]
    pairs = [(places[one], places[-1 - one]) for one in range(even // 2)]
    return sorted((min(pair), max(pair)) for pair in pairs if max(pair) < count)


def partner(rank: int, number: int, count: int) -> int | None:
    """Whom one of n meets in a round; None where it pauses."""
    for one, other in pairs_of_round(number, count):
        if rank in (one, other):
            return other if rank == one else one
    return None


def measure(places: list[tuple[int, int]], mebibytes: int, device: torch.device) -> Measured:
    """Exchange with others, in pairs and all at once; every process calls it.

    Args:
        places: of each rank, its node and its place on the node.
        mebibytes: that a process sends at a time.
        device: of what is sent.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    node, place = places[rank]
    rank_at = {where: rank for rank, where in enumerate(places)}
    numbers = torch.ones(mebibytes * 2**18, device=device)
    on_node = [sum(one == other for one, _ in places) for other in range(places[-1][0] + 1)]
    in_node: list[float] = []
    across: list[float] = []
    for number in range(max(on_node) - 1 + max(on_node) % 2):
        met = partner(place, number, on_node[node])
        _note(in_node, numbers, None if met is None else rank_at[node, met])
    nodes = len(on_node)
    for number in range(min(nodes - 1 + nodes % 2, _MOST_ROUNDS) if nodes > 1 else 0):
        met = partner(node, number, nodes)
        _note(across, numbers, None if met is None else rank_at.get((met, place)))
    if world == 1:
        return Measured(_sums_are_right(device), in_node, across)
    parts = torch.ones(len(numbers) // world * world, device=device)
    received = torch.empty_like(parts)
    share = (world - 1) / world * mebibytes / 1024
    return Measured(
        _sums_are_right(device),
        in_node,
        across,
        2 * share / _seconds(lambda: dist.all_reduce(numbers), device),
        share / _seconds(lambda: dist.all_to_all_single(received, parts), device),
    )


def _note(rates: list[float], numbers: Tensor, other: int | None) -> None:
    """Exchange with another process, if there is one in this round, and note at which rate."""
    dist.barrier()
    if other is None:
        return
    received = torch.empty_like(numbers)

    def exchange() -> None:
        sent = dist.P2POp(dist.isend, numbers, other)
        taken = dist.P2POp(dist.irecv, received, other)
        for work in dist.batch_isend_irecv([sent, taken]):
            work.wait()

    rates.append(numbers.nbytes / 2**30 / _seconds(exchange, numbers.device))


def _seconds(exchange: Callable[[], object], device: torch.device) -> float:
    """The least of some times."""
    found = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        exchange()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begin)
    return min(found)


def _sums_are_right(device: torch.device) -> bool:
    """Whether sums over all ranks are those of 1 to P, at every place of what was sent."""
    world = dist.get_world_size()
    numbers = torch.arange(4_096, device=device, dtype=torch.float64)
    total = numbers * (dist.get_rank() + 1)
    dist.all_reduce(total)
    return bool((total == numbers * (world * (world + 1) / 2)).all())
