"""How long users of a world wait for their lists, by its virtual clock (docs/online.md).

Draws belong to the user and the moment of the visit, so that two policies meet the same networks
and devices.

Legend: B visits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.data.simulator.world.config import LatencyConfig
from recsys.data.simulator.world.draws import Stream, normals, words
from recsys.data.simulator.world.world import World

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


def wait_ms(
    world: World,
    user: Integers,
    visited: Integers,
    asked: Integers,
    pairs_scored: NDArray[np.floating],
    pairs_cached: NDArray[np.floating],
) -> Doubles:
    """From end to end, [B] ms; NaN in a world without latencies, or without counts of pairs.

    A list that was asked for when the app was opened is on its way meanwhile: what is left of that
    at the visit is waited for, and the device.

    Args:
        world: with networks and devices.
        user: [B] indices.
        visited: [B] moments of the visits, ms.
        asked: [B] when the lists were asked for: the same, or earlier.
        pairs_scored: [B] for each list.
        pairs_cached: [B] likewise.

    Example: a network of 200 ms, 100 pairs of 4 ms and a device of 50 ms make a wait of 650 ms;
    asked for half a second before the visit, one of 150 ms; a minute before, one of 50 ms.
    """
    of = world.world.latency
    if of is None:
        return np.full(len(user), np.nan)
    network, device = _network_ms(world, of, user, visited), _device_ms(world, of, user, visited)
    server = of.server_ms + of.pair_ms * pairs_scored + of.cached_ms * pairs_cached
    on_its_way = asked + network + server - visited
    return device + np.maximum(on_its_way, 0)


def _network_ms(world: World, of: LatencyConfig, user: Integers, visited: Integers) -> Doubles:
    median = _medians(world.world.opens.network_shares, of.network_ms)[world.users.network[user]]
    own = of.user_sd * normals(words(world.config.seed, Stream.WAIT, user))
    now = of.visit_sd * normals(words(world.config.seed, Stream.WAIT, user, visited))
    return median * np.exp(own + now)


def _device_ms(world: World, of: LatencyConfig, user: Integers, visited: Integers) -> Doubles:
    median = _medians(world.world.opens.device_shares, of.device_ms)[world.users.device[user]]
    now = normals(words(world.config.seed, Stream.WAIT, user, visited), 1)
    return median * np.exp(of.visit_sd * now)


def _medians(shares: Mapping[str, float], medians: Mapping[str, float]) -> Doubles:
    """By the code of a device or network."""
    return np.array([medians[name] for name in shares])
