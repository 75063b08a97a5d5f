"""What a service knows when it is asked: a data set, and what has come since.

Legend: B requests, n pairs or events, A items alive, V items, G groups of users, K tasks, C values
of a column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Hours, HoursAboveZero, Settings
from recsys.data.contract.schema import (
    ACTION_TYPES,
    IMPRESSION,
    LENGTHS,
    MILLISECONDS_PER_DAY,
    MILLISECONDS_PER_HOUR,
    Task,
    TaskKind,
    TimelineKind,
)
from recsys.data.features.seen import SeenHistory
from recsys.data.stores.derived import ALL_EVENTS, user_chunks
from recsys.data.stores.live.dataset import LiveDataset
from recsys.data.stores.live.journal import Position
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.columns import Columns
from recsys.serving.funnel.counts import TASTE_HOURS, ItemCounts, favourites, taste
from recsys.serving.funnel.knowledge import NONE

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
_T = TypeVar("_T")

#: Watching is no engagement, however long.
_WATCHING = frozenset({"long_view", "video_complete"})
#: Of a user's events of a kind the newest ones say what the user likes.
_TASTE_EVENTS = 2_000
#: What is alive and popular at a moment is taken for what is so for as long.
_STANDS_MS = 15_000
_COUNTED = ("item", "action_type", "dwell_time")


@dataclass(frozen=True)
class KnowledgeConfig(Settings):
    """What a service counts of a data set.

    Attributes:
        alive_hours: items can be shown for so long after they were first seen; null for ever.
        log_hours: of the data set that are counted when the service starts.
    """

    alive_hours: HoursAboveZero | None = None
    log_hours: Hours = 96.0


@dataclass(frozen=True, eq=False)
class _Standing:
    """What was alive and popular at a moment, and what followed from it.

    Attributes:
        moment: ms.
        alive: [A] items.
        popularity: [1 + G, A] of them.
        withdrawn: items that were taken out by then.
        made: by name, and how it is made.
    """

    moment: int
    alive: Integers
    popularity: Doubles
    withdrawn: Integers
    made: dict[str, tuple[Callable[[Integers, Doubles], Any], Any]]


@dataclass(frozen=True, eq=False)
class _Now:
    """What holds for the requests that are answered.

    Attributes:
        user: [B] ascending, each once.
        standing: what is alive and popular.
        kept: share of what was popular that is left.
        engaged: by column [B, C] how often with each of its values.
        shown: [B, C] how often each topic was shown.
    """

    user: Integers
    standing: _Standing
    kept: float
    engaged: dict[str, Doubles]
    shown: Doubles


class LiveKnowledge:
    """Counts what is shown and done as soon as it is appended; see ``Knowledge``.

    One thread asks at a time, and ``at`` comes first.

    Args:
        dataset: with the live events of all processes.
        group: column of the users by which they are told apart; None for one group of all.
        config: what is counted.
        former: of the same data set with fewer announced items, whose counts of what is stored are
            taken over; None to count it.

    Attributes:
        tasks: K that are counted: those of the data set that are actions, or time watched.
        born: [V] ms since when each item is there; far ahead for those that are not.
        newest: moment of the newest event that is known, ms.

    Raises:
        ConfigError: users have no such column.
    """

    def __init__(
        self,
        dataset: LiveDataset,
        group: str | None,
        config: KnowledgeConfig,
        former: LiveKnowledge | None = None,
    ) -> None:
        self._dataset, self._config = dataset, config
        manifest = dataset.manifest
        self._sizes = manifest.vocabulary_sizes
        self._columns = Columns(dataset, group)
        self._group = self._columns.group
        self._seen = SeenHistory(dataset)
        self.born: Integers = dataset.vocabulary("item").first_seen(self._sizes["item"])
        self._by_age = np.argsort(self.born, kind="stable")
        self._born_by_age = self.born[self._by_age]
        self._ids = {name: of.astype(np.int64) for name, of in dataset.ids_of_items.items()}
        self.tasks = counted_tasks(dataset)
        self._task_of = np.full(len(manifest.action_types), len(self.tasks))
        for number, task in enumerate(self.tasks):
            if task.kind is TaskKind.BINARY:
                self._task_of[manifest.action_types.index(task.name)] = number
        engages = [name for name in manifest.actions.positive if name not in _WATCHING]
        self._engages = np.isin(
            np.arange(len(manifest.action_types)), manifest.actions.codes(engages)
        )
        last = manifest.counts["last_timestamp"]
        binary = np.array([task.kind is TaskKind.BINARY for task in self.tasks])
        self._counts = ItemCounts(int(self._group.max(initial=0)), len(self.born), binary, last)
        self.newest = last
        self._position = Position()
        self._now: _Now | None = None
        nothing = np.empty((len(self.groups), 0))
        none = self._by_age[:0]
        self._standing = _Standing(-_STANDS_MS, none, nothing, none, {})
        if former is None:
            self._count_stored(last + 1)
            self._stored = self._counts.grown(len(self.born))
        else:
            self._stored = former._stored
            self._counts = self._stored.grown(len(self.born))

    def grown(self, dataset: LiveDataset) -> LiveKnowledge:
        """The same of the data set with items that were announced since; this one goes on."""
        return LiveKnowledge(dataset, self._columns.grouped_by, self._config, self)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, by number."""
        return self._columns.groups

    def refresh(self) -> None:
        """Count what any process has appended."""
        position, records = self._dataset.live.since(self._position)
        if position.epoch != self._position.epoch and self._position.number:
            # what was counted may have been deleted
            last = self._dataset.manifest.counts["last_timestamp"]
            self._counts = self._counts.empty(last)
            self._count_stored(last + 1)
        self._position = position
        if len(records):
            self.newest = max(self.newest, int(records["timestamp"].max()))
            self._counts.advance(self.newest)
            names = ("timestamp", *_COUNTED)
            self._count(records["user"].astype(np.int64), {name: records[name] for name in names})

    def ask(self, number: Integers, user: Integers, moment: Integers) -> Requests:
        """B requests of users at moments (ms), and what is known from now on is that of theirs."""
        named = self._columns.grouped_by
        columns = {} if named is None else {named: self.group(user)}
        requests = Requests(number, user, moment, columns)
        self.refresh()
        latest = int(moment.max(initial=0))
        stands = 0 <= latest - self._standing.moment < _STANDS_MS
        if not stands or self._standing.withdrawn is not self._dataset.live.withdrawn():
            self.renew(latest)
        users, place = np.unique(user, return_index=True)
        engaged, shown = self._tastes(users, moment[place])
        self._now = _Now(users, self._standing, self._counts.kept(latest), engaged, shown)
        return requests

    def renew(self, moment: int) -> None:
        """Say anew what is alive and popular at a moment, ms, and what follows; in any thread."""
        ends = (self._oldest(moment), moment)
        first, last = np.searchsorted(self._born_by_age, ends)
        alive, withdrawn = self._by_age[first:last], self._dataset.live.withdrawn()
        if len(withdrawn):
            alive = alive[~np.isin(alive, withdrawn)]
        popularity = self._counts.popularity(alive)
        made = {
            name: (make, make(alive, popularity))
            for name, (make, _) in list(self._standing.made.items())
        }
        self._standing = _Standing(moment, alive, popularity, withdrawn, made)

    def standing(self, name: str, make: Callable[[Integers, Doubles], _T]) -> _T:
        """What follows from what is alive and popular; that stands for some seconds."""
        of = self._at.standing
        if name not in of.made:
            of.made[name] = make, make(of.alive, of.popularity)
        found: _T = of.made[name][1]
        return found

    def is_alive(self, item: Integers, moment: int) -> NDArray[np.bool_]:
        """[n] whether items can be shown at a moment, ms."""
        born = self.born[item]
        there = (born < moment) & (born >= self._oldest(moment))
        return there & ~np.isin(item, self._dataset.live.withdrawn())

    def _oldest(self, moment: int) -> float:
        """When items that can be shown were first seen at the earliest, ms."""
        hours = self._config.alive_hours
        return 0.0 if hours is None else moment - hours * MILLISECONDS_PER_HOUR

    @property
    def _at(self) -> _Now:
        assert self._now is not None, "nobody has asked yet"
        return self._now

    @property
    def alive(self) -> Integers:
        """[A] items that were first seen before now, not too long ago, and not withdrawn."""
        return self._at.standing.alive

    def seen(self, user: Integers, moment: Integers, item: Integers) -> NDArray[np.bool_]:
        """[n] whether a user was shown an item, or dealt with it, before a moment."""
        return self._seen.seen(user, moment, item)

    def group(self, user: Integers) -> Integers:
        """[B] index of the users' category, from 1; 0 where it is unknown."""
        return self._group[user]

    def column(self, name: str) -> Integers:
        """[V] ``author``, ``topic``, or a categorical feature of the items.

        Raises:
            ConfigError: there is no such column.
        """
        return self._ids[name] if name in self._ids else self._columns.of_items(name)

    def number(self, name: str) -> NDArray[np.float32]:
        """[V] a number of the items as it is stated; NaN where it is unknown.

        Raises:
            ConfigError: there is no such number.
        """
        return self._columns.number(name)

    def favourites(self, name: str, user: Integers) -> Integers:
        """[B, f] authors or topics that users engage with most; 0 for none."""
        now = self._at
        engaged = now.engaged[name][np.searchsorted(now.user, user)]
        engaged[:, NONE] = 0
        return favourites(engaged)

    def expected(self, user: Integers, item: Integers) -> Doubles:
        """[n, K] what is to be expected of pairs: the item's rates, times the user's taste."""
        return self._counts.expected(item, self._taste(user, item))

    def engaged_at(self, user: int, moment: int) -> Integers:
        """[n] when a user has engaged with items of late before a moment, ms; in any thread."""
        columns, at = ("timestamp", "action_type"), (np.array([user]), np.array([moment]))
        events = self._dataset.timelines.histories(
            *at, TimelineKind.EXPLICIT, _TASTE_EVENTS, columns=columns
        )
        times: Integers = events["timestamp"][self._engages[events["action_type"]]]
        return times

    def engagements(self, item: Integers) -> Doubles:
        """[n] engagements of late, of all users."""
        return self._counts.engagements(item) * self._at.kept

    def affinity(self, user: Integers, item: Integers) -> Doubles:
        """[n] how likely an engagement is, by popularity of late and taste."""
        return self._counts.affinity(item, self._taste(user, item), self._at.kept)

    def _taste(self, user: Integers, item: Integers) -> Doubles:
        now, topic = self._at, self._ids["topic"][item]
        row = np.searchsorted(now.user, user)
        did, was_shown = now.engaged["topic"][row, topic], now.shown[row, topic]
        return taste(did, was_shown, self._counts.mean_rate(now.kept))

    def _tastes(self, users: Integers, moment: Integers) -> tuple[dict[str, Doubles], Doubles]:
        """What users [B] engaged with, by column, and topics they were shown; halved by and by."""
        found: dict[tuple[TimelineKind, str], Doubles] = {}
        for kind in TimelineKind:
            columns = ("author", "topic", "action_type")
            events = self._dataset.timelines.histories(
                users, moment, kind, _TASTE_EVENTS, columns=columns
            )
            row = np.repeat(np.arange(len(users)), events[LENGTHS])
            days = (moment[row] - events["timestamp"]) // MILLISECONDS_PER_DAY
            weight = 0.5 ** (24 * days / TASTE_HOURS)
            if kind is TimelineKind.EXPLICIT:
                weight *= self._engages[events["action_type"]]
            for name in ("author", "topic"):
                size = self._sizes[name]
                key = row * size + events[name]
                sums: Doubles = np.bincount(key, weight, len(users) * size).astype(np.float64)
                found[kind, name] = sums.reshape(len(users), size)
        engaged = {name: found[TimelineKind.EXPLICIT, name] for name in ("author", "topic")}
        return engaged, found[TimelineKind.IMPLICIT, "topic"]

    def _count_stored(self, before: int) -> None:
        """Count the data set's last hours; live events are all later than ``before``, ms."""
        since = before - self._config.log_hours * MILLISECONDS_PER_HOUR
        for users in user_chunks(self._dataset, *TimelineKind):
            for kind in TimelineKind:
                events = self._dataset.timelines.histories(
                    users, np.full(len(users), before), kind, ALL_EVENTS, columns=_COUNTED
                )
                user = np.repeat(users, events.pop(LENGTHS)).astype(np.int64)
                late = events["timestamp"] >= since
                columns = {name: of[late] for name, of in events.items()}
                if kind is TimelineKind.IMPLICIT:
                    code = ACTION_TYPES.index(IMPRESSION)
                    columns["action_type"] = np.full(int(late.sum()), code, np.int8)
                else:
                    columns["dwell_time"] = np.full(int(late.sum()), np.nan, np.float32)
                self._count(user[late], columns)

    def _count(self, user: Integers, columns: dict[str, NDArray]) -> None:
        """Count events [n]: ``timestamp``, ``item``, ``action_type`` and ``dwell_time``."""
        known = columns["item"] > 0
        group = self._group[user[known]]
        item, action, dwell, moment = (
            columns[name][known] for name in ("item", "action_type", "dwell_time", "timestamp")
        )
        item, left = item.astype(np.int64), self._counts.left(moment)
        shown = action == ACTION_TYPES.index(IMPRESSION)
        engaged = self._engages[action]
        self._counts.add_shown(group[shown], item[shown], left[shown])
        self._counts.add_engaged(group[engaged], item[engaged], left[engaged])
        outcomes = np.zeros((len(item), len(self.tasks) + 1))
        outcomes[np.arange(len(item)), self._task_of[action]] = 1
        for number, task in enumerate(self.tasks):
            if task.kind is TaskKind.REGRESSION:
                outcomes[:, number] = np.nan_to_num(dwell)
        self._counts.add_done(item, outcomes[:, :-1])


def counted_tasks(dataset: LiveDataset) -> tuple[Task, ...]:
    """What can be counted of the tasks; of a log without tasks its actions, and time watched."""
    manifest = dataset.manifest
    explicit = [name for name in manifest.actions.explicit if manifest.action_counts.get(name, 0)]
    if not manifest.tasks:
        tasks = [Task(name) for name in explicit]
        return (*tasks, Task("watch_time", TaskKind.REGRESSION))
    return tuple(
        task
        for task in manifest.tasks
        if task.kind is TaskKind.REGRESSION or task.name in manifest.action_types
    )
