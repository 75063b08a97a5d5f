"""What a policy knows of a world while it is played: what was published, shown and done so far.

Legend: B requests, n pairs, A items alive, V items, G regions, K tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, TaskKind
from recsys.data.simulator.world.counters import ItemCounters, engaged
from recsys.data.simulator.world.play import Requests, Shown
from recsys.data.simulator.world.world import World
from recsys.serving.funnel.knowledge import NONE

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]

#: What is popular of late, and what users like, is halved in so many hours.
_POPULAR_HOURS, _TASTE_HOURS = 6.0, 168.0
#: Impressions that a prior weighs: the rate of all items, and users like all others.
_PRIOR, _TASTE_PRIOR = 20.0, 20.0
#: The column of users and items that says who may get what.
REGION = "region"
#: Favourites that are told of a user.
_FAVOURITES = 8


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
        self._popular = ItemCounters(world, _POPULAR_HOURS)
        catalogue = world.catalogue
        self._columns = {
            "author": 1 + catalogue.item_author.astype(np.int64),
            "topic": 1 + catalogue.item_topic.astype(np.int64),
            REGION: 1 + world.items.region.astype(np.int64),
        }
        self.born: Integers = world.items.published + world.start
        self._binary = np.array([task.kind is TaskKind.BINARY for task in world.tasks])
        items, tasks = len(self.born), len(world.tasks)
        self._shown, self._done = np.zeros(items), np.zeros((items, tasks))
        self._all_shown, self._all_done = 10.0, np.full(tasks, 0.1)
        users = len(world.users)
        self._taste = {
            name: np.zeros((users, int(column.max()) + 1), np.float32)
            for name, column in self._columns.items()
            if name != REGION
        }
        self._topic_shown = np.zeros((users, int(self._columns["topic"].max()) + 1), np.float32)
        self._faded = world.start
        self._requests: Requests | None = None

    def at(self, requests: Requests) -> None:
        """Go on to the moment of some requests."""
        self._requests = requests
        now = int(requests.time[0])
        self._popular.advance(now)
        days = (now - self._faded) // MILLISECONDS_PER_DAY
        if days > 0:
            kept = np.float32(0.5 ** (24 * days / _TASTE_HOURS))
            for table in (*self._taste.values(), self._topic_shown):
                table *= kept
            self._faded += days * MILLISECONDS_PER_DAY

    def observe(self, shown: Shown) -> None:
        """Count what users have looked at, and what they did."""
        self._popular.add(shown)
        outcomes = np.nan_to_num(shown.outcomes).astype(np.float64)
        np.add.at(self._shown, shown.item, 1)
        np.add.at(self._done, shown.item, outcomes)
        self._all_shown += len(shown)
        self._all_done += outcomes.sum(axis=0)
        positive = engaged(self._world, shown)
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
        return 1 + self._world.users.region[user].astype(np.int64)

    def popularity(self, item: Integers) -> Doubles:
        """[1 + regions, n] engagements of late, those of all users first."""
        engaged = self._popular.engaged[:, item]
        return np.concatenate([engaged.sum(axis=0, keepdims=True), engaged])

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
        taste = self._taste[name][user]
        number = min(_FAVOURITES, taste.shape[1])
        chosen = np.argpartition(-taste, number - 1, axis=1)[:, :number]
        chosen.sort(axis=1)
        own = np.take_along_axis(taste, chosen, axis=1)
        order = np.argsort(-own, axis=1, kind="stable")
        found = np.take_along_axis(chosen, order, axis=1)
        return np.where(np.take_along_axis(own, order, axis=1) > 0, found, NONE)

    def expected(self, user: Integers, item: Integers) -> Doubles:
        """[n, K] what is to be expected of pairs: the item's rates, times the user's taste.

        An item's rates are drawn to those of all items by a prior; a user's taste is how much more
        often than others he engages with the topic, likewise.
        """
        of_all = self._all_done / self._all_shown
        rates = (self._done[item] + _PRIOR * of_all) / (self._shown[item][:, None] + _PRIOR)
        found = rates * self.taste(user, item)[:, None]
        return np.where(self._binary, np.minimum(found, 1.0), found)

    def affinity(self, user: Integers, item: Integers) -> Doubles:
        """[n] how likely an engagement is, by popularity of late and taste."""
        shown = self._popular.shown[:, item].sum(axis=0)
        rate = (self._popular.engaged[:, item].sum(axis=0) + 1) / (shown + _PRIOR)
        return rate * self.taste(user, item)

    def taste(self, user: Integers, item: Integers) -> Doubles:
        """[n] how much more often than all users a user engages with the item's topic."""
        topic = self._columns["topic"][item]
        share = self._popular.engaged.sum() + 1
        mean = share / (self._popular.shown.sum() + 10)
        did = self._taste["topic"][user, topic].astype(np.float64)
        was_shown = self._topic_shown[user, topic].astype(np.float64)
        return (did + _TASTE_PRIOR * mean) / ((was_shown + _TASTE_PRIOR) * mean)
