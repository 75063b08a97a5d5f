"""The policies that ship: one that reads the truth, one that knows nothing, and popularity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.composition import load
from recsys.core.errors import ConfigError
from recsys.core.group_files import is_file_name
from recsys.core.paths import conf_dir
from recsys.data.simulator.world.counters import ItemCounters
from recsys.data.simulator.world.play import Policy, Recommended, Requests
from recsys.data.simulator.world.viewing import NOTHING, Shown
from recsys.data.simulator.world.world import World
from recsys.online.funnel import FunnelPolicy
from recsys.serving.funnel.config import FunnelConfig

Integers = NDArray[np.int64]

#: Half-life of what counts as popular of late.
_RECENT_HOURS = 6.0

#: Requests whose pairs with everything alive are in memory at a time.
_REQUESTS_AT_A_TIME = 16

#: A list is looked for among this many times its length first, in popularity.
_FIRST_LOOK = 8


class Best:
    """The list of the highest expected value: it reads the truth, as nobody else may.

    It is the best list of each visit by itself; what a list leaves for later visits it does not
    weigh.
    """

    name = "best"

    def __init__(self, world: World) -> None:
        self._world = world

    def recommend(self, requests: Requests, k: int) -> Recommended:
        """The k unseen items alive with the highest expected value, the best first."""
        items = np.full((len(requests), k), NOTHING)
        size = min(k, len(requests.alive))
        for first in range(0, len(requests), _REQUESTS_AT_A_TIME):
            chosen = slice(first, first + _REQUESTS_AT_A_TIME)
            user, alive = requests.user[chosen, None], requests.alive[None, :]
            time, surface = requests.time[chosen, None], requests.surface[chosen, None]
            value = self._world.expected_value(user, alive, time, surface)
            value[requests.seen.has(user, alive)] = -np.inf
            if size:
                items[chosen, :size] = _highest(value, requests.alive, size)
        return Recommended(items, pairs_scored=len(requests.alive))

    def observe(self, shown: Shown) -> None:
        """Nothing is learned: the truth is known."""


class Random:
    """Items drawn uniformly; what a user has seen is left out where it can be."""

    name = "random"

    def __init__(self, world: World) -> None:
        self._rng = np.random.default_rng(world.config.seed)

    def recommend(self, requests: Requests, k: int) -> Recommended:
        """Different unseen items alive: a random order, begun at a random place for each user."""
        order = self._rng.permutation(requests.alive)
        turn = self._rng.integers(0, max(len(order), 1), len(requests))
        return Recommended(first_unseen(requests, order, k, turn), pairs_scored=0)

    def observe(self, shown: Shown) -> None:
        """Nothing is learned."""


class Popular:
    """What the user's region has engaged with most.

    Args:
        world: with items and regions.
        half_life_hours: of what counts; None for all of an item's life.
    """

    name = "popular"

    def __init__(self, world: World, half_life_hours: float | None = None) -> None:
        self._region = world.users.region
        self._counters = ItemCounters(world, half_life_hours)

    def recommend(self, requests: Requests, k: int) -> Recommended:
        """The k unseen items alive with the most engagements of the region, newer ones in ties."""
        self._counters.advance(int(requests.time[0]))
        items = np.full((len(requests), k), NOTHING)
        newest_first = requests.alive[::-1]
        region = self._region[requests.user]
        for code in np.unique(region):
            count = self._counters.engaged[code, newest_first]
            order = newest_first[np.argsort(-count, kind="stable")]
            mine = np.flatnonzero(region == code)
            items[mine] = first_unseen(requests.only(mine), order, k)
        return Recommended(items, pairs_scored=0)

    def observe(self, shown: Shown) -> None:
        """Count it."""
        self._counters.add(shown)


class RecentPopular(Popular):
    """What the user's region has engaged with most in the last hours."""

    name = "recent_popular"

    def __init__(self, world: World) -> None:
        super().__init__(world, _RECENT_HOURS)


POLICIES: dict[str, Callable[[World], Policy]] = {
    policy.name: policy for policy in (Best, Random, Popular, RecentPopular)
}


def make_policy(name: str, world: World, changes: Sequence[str] = ()) -> Policy:
    """The policy of a name: one that ships, or that of a funnel.

    Args:
        name: of a policy, of a file of ``conf/funnel``, or a file of a funnel.
        world: to be played.
        changes: settings of the funnel, ``key=value``, that are otherwise.

    Raises:
        ConfigError: there is none, nothing of it changes, or the funnel asks for what a world
            does not have.
    """
    if name in POLICIES:
        if changes:
            raise ConfigError(f"changes={list(changes)}: {name} is no funnel; leave them out.")
        return POLICIES[name](world)
    return FunnelPolicy(world, funnel_named(name, changes))


def funnel_named(name: str, changes: Sequence[str] = ()) -> FunnelConfig:
    """A funnel of ``conf/funnel`` by its name, or a file of one, and what is otherwise.

    Raises:
        ConfigError: there is none, or the changes do not fit.
    """
    there = {path.stem: path for path in sorted((conf_dir() / "funnel").glob("*.yaml"))}
    path = there.get(name, Path(name) if is_file_name(name) else None)
    if path is None:
        raise ConfigError(
            f"policy {name} is unknown; choose from {', '.join([*POLICIES, *there])}, or give the "
            "file of a funnel, such as my_funnel.yaml."
        )
    return load(path, FunnelConfig, changes)


def first_unseen(
    requests: Requests, order: Integers, k: int, turn: Integers | None = None
) -> Integers:
    """The first k items of an order that each user has not seen, [B, k].

    Args:
        requests: of B users.
        order: [N] items.
        k: length of a list; ``NOTHING`` follows where there are fewer.
        turn: [B] where each user's order begins; it goes on at the front. None for the front.
    """
    items = np.full((len(requests), k), NOTHING)
    rows, look = np.arange(len(requests)), min(_FIRST_LOOK * k, len(order))
    while len(rows) and look:
        place = np.arange(look)[None, :]
        if turn is not None:
            place = (place + turn[rows, None]) % len(order)
        candidates = np.broadcast_to(order[place], (len(rows), look))
        unseen = ~requests.seen.has(requests.user[rows, None], candidates)
        number = np.cumsum(unseen, axis=1)
        row, column = np.nonzero(unseen & (number <= k))
        items[rows[row], number[row, column] - 1] = candidates[row, column]
        if look == len(order):
            break
        rows, look = rows[number[:, -1] < k], min(look * _FIRST_LOOK, len(order))
    return items


def _highest(value: NDArray[np.float32], items: Integers, size: int) -> Integers:
    """The items of the highest values, [B, size]; ``NOTHING`` where they are −∞."""
    found = np.argpartition(-value, size - 1, axis=1)[:, :size]
    own = np.take_along_axis(value, found, axis=1)
    order = np.argsort(-own, axis=1, kind="stable")
    highest = items[np.take_along_axis(found, order, axis=1)]
    return np.where(np.isneginf(np.take_along_axis(own, order, axis=1)), NOTHING, highest)
