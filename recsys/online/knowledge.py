"""What a policy knows of a world while it is played: what was published, shown and done so far.

Legend: B requests, n pairs, A items alive, V items, G regions, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, TaskKind
from recsys.data.simulator.world.counters import engaged
from recsys.data.simulator.world.play import Requests
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World
from recsys.serving.funnel.counts import TASTE_HOURS, ItemCounts, favourites, taste

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
_T = TypeVar("_T")

#: The column of users and items that says who may get what.
REGION = "region"


class PlayedKnowledge:
    """Counts what is shown and done, and forgets by and by; the truth is never looked at.

    Args:
        world: whose published facts are read: authors, topics, regions, integrity, publication.
        group: what users are told apart by: their ``region``; None for one group of all.

    Attributes:
        born: [V] ms.

    Raises:
        ConfigError: users have no such column.
    """

    def __init__(self, world: World, group: str | None = REGION) -> None:
        if group not in (None, REGION):
            raise ConfigError(
                f"funnel.group={group}: users of a world have no such column; they have a {REGION}."
            )
        self._world, self._grouped = world, group is not None
        catalogue = world.catalogue
        self._columns = {
            "author": 1 + catalogue.item_author.astype(np.int64),
            "topic": 1 + catalogue.item_topic.astype(np.int64),
            REGION: 1 + world.items.region.astype(np.int64),
        }
        self.born: Integers = world.items.published + world.start
        binary = np.array([task.kind is TaskKind.BINARY for task in world.tasks])
        regions = len(world.world.regions.shares)
        self._counts = ItemCounts(regions, len(self.born), binary, world.start)
        users = len(world.users)
        self._taste = {
            name: np.zeros((users, int(column.max()) + 1), np.float32)
            for name, column in self._columns.items()
            if name != REGION
        }
        self._topic_shown = np.zeros((users, int(self._columns["topic"].max()) + 1), np.float32)
        self._regions: Integers = 1 + world.users.region.astype(np.int64)
        self._faded = world.start
        self._requests: Requests | None = None
        self._standing: dict[str, Any] = {}

    def at(self, requests: Requests) -> None:
        """Go on to the moment of some requests."""
        self._requests = requests
        self._standing.clear()
        now = int(requests.time[0])
        self._counts.advance(now)
        days = (now - self._faded) // MILLISECONDS_PER_DAY
        if days > 0:
            kept = np.float32(0.5 ** (24 * days / TASTE_HOURS))
            for table in (*self._taste.values(), self._topic_shown):
                table *= kept
            self._faded += days * MILLISECONDS_PER_DAY

    def observe(self, shown: Shown) -> None:
        """Count what users have looked at, and what they did."""
        region = self._regions[shown.user]
        self._counts.add_shown(region, shown.item)
        self._counts.add_done(shown.item, np.nan_to_num(shown.outcomes).astype(np.float64))
        positive = engaged(self._world, shown)
        self._counts.add_engaged(region[positive], shown.item[positive])
        for name, table in self._taste.items():
            np.add.at(table, (shown.user, self._columns[name][shown.item]), positive)
        np.add.at(self._topic_shown, (shown.user, self._columns["topic"][shown.item]), 1)

    @property
    def alive(self) -> Integers:
        """[A] items that can be shown."""
        return self._now.alive

    @property
    def _now(self) -> Requests:
        assert self._requests is not None, "nobody has asked yet"
        return self._requests

    def seen(self, user: Integers, moment: Integers, item: Integers) -> NDArray[np.bool_]:
        """Whether users have seen items that are alive."""
        return self._now.seen.has(user, item)

    def group(self, user: Integers) -> Integers:
        """[B] region, from 1; 0 where users are not told apart."""
        if not self._grouped:
            return np.zeros(len(user), np.int64)
        return self._regions[user]

    def standing(self, name: str, make: Callable[[Integers, Doubles], _T]) -> _T:
        """What follows from popularity, made once for the requests of a moment."""
        if name not in self._standing:
            alive = self.alive
            self._standing[name] = make(alive, self._counts.popularity(alive))
        found: _T = self._standing[name]
        return found

    def column(self, name: str) -> Integers:
        """[V] ``author``, ``topic`` or ``region``, from 1.

        Raises:
            ConfigError: there is no such column.
        """
        if name not in self._columns:
            raise ConfigError(
                f"Items of a world have no column {name}; they have {', '.join(self._columns)}."
            )
        return self._columns[name]

    def number(self, name: str) -> NDArray[np.float32]:
        """[V] ``integrity``, as it is known of the items.

        Raises:
            ConfigError: there is no such number.
        """
        if name != "integrity":
            raise ConfigError(f"Items of a world have no number {name}; they have integrity.")
        return self._world.items.integrity

    def favourites(self, name: str, user: Integers) -> Integers:
        """[B, f] authors or topics that users engage with most; 0 for none."""
        return favourites(self._taste[name][user])

    def expected(self, user: Integers, item: Integers) -> Doubles:
        """[n, K] what is to be expected of pairs: the item's rates, times the user's taste."""
        return self._counts.expected(item, self.taste(user, item))

    def engagements(self, item: Integers) -> Doubles:
        """[n] engagements of late, of all users."""
        return self._counts.engagements(item)

    def affinity(self, user: Integers, item: Integers) -> Doubles:
        """[n] how likely an engagement is, by popularity of late and taste."""
        return self._counts.affinity(item, self.taste(user, item))

    def taste(self, user: Integers, item: Integers) -> Doubles:
        """[n] how much more often than all users a user engages with the item's topic."""
        topic = self._columns["topic"][item]
        did = self._taste["topic"][user, topic].astype(np.float64)
        was_shown = self._topic_shown[user, topic].astype(np.float64)
        return taste(did, was_shown, self._counts.mean_rate())
