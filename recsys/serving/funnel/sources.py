"""Sources that run no model: trending, fresh, favourite authors and topics, lists made before.

Legend: B requests, N candidates, A items that can be shown now, V items, G groups of users, m items
of the longest list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.core.hashing import splitmix64
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.serving.funnel.candidates import Offers, Requests
from recsys.serving.funnel.knowledge import NONE, Knowledge
from recsys.serving.funnel.stages import History

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
Lists = Callable[[int, int], Integers]

#: An order is looked through this many times a quota deep for what a user has not seen.
DEPTH = 4


@dataclass(frozen=True, eq=False)
class Trending:
    """What the user's group engages with most of late, and he has not seen.

    Attributes:
        known: what is known.
        quota: items of a request.
        name: of the source.
    """

    known: Knowledge
    quota: int
    name: str = "trending"

    def find(self, requests: Requests) -> Offers:
        """The quota's most popular ones."""
        depth = DEPTH * self.quota
        item, score = self.known.standing(f"popular {depth}", partial(most_popular, depth))
        group = self.known.group(requests.user)
        return unseen(self.known, requests, item[group], score[group], self.quota)


@dataclass(frozen=True, eq=False)
class Favourites:
    """What is popular among the items that share a user's favourite authors or topics.

    Attributes:
        known: what is known.
        column: ``author`` or ``topic``.
        each: items of each favourite.
        quota: items of a request.
    """

    known: Knowledge
    column: str
    each: int
    quota: int

    @property
    def name(self) -> str:
        """By the column."""
        return f"favourite_{self.column}s"

    def find(self, requests: Requests) -> Offers:
        """So many of each favourite, those of the first favourite first."""
        alive, value, popularity = self.known.standing(f"popular by {self.column}", self._ordered)
        if not len(alive):
            return Offers.none(len(requests))
        wanted = self.known.favourites(self.column, requests.user)  # [B, f]
        first = np.searchsorted(value, wanted)
        place = first[:, :, None] + np.arange(self.each)  # [B, f, each]
        there = place < len(value)
        place = np.where(there, place, 0)
        there &= (value[place] == wanted[:, :, None]) & (wanted[:, :, None] != NONE)
        flat = place.reshape(len(requests), -1)
        item, score, there = alive[flat], popularity[flat], there.reshape(flat.shape)
        return unseen(self.known, requests, item, score, self.quota, there)

    def _ordered(self, alive: Integers, popularity: Doubles) -> tuple[Integers, Integers, Doubles]:
        """[A] items by value, the most popular ones of each first; their values and popularity."""
        value, of_all = self.known.column(self.column)[alive], popularity.sum(axis=0)
        order = np.lexsort((-of_all, value))
        return alive[order], value[order], of_all[order]


@dataclass(frozen=True, eq=False)
class Fresh:
    """Items of the last hours, each as likely as another: a bounded share of exploration.

    Which ones follows from the request's number alone; every one of P is found with the
    probability quota / P.

    Attributes:
        known: what is known.
        hours: oldest age.
        quota: items of a request.
        seed: of the draws.
        name: of the source.
    """

    known: Knowledge
    hours: float
    quota: int
    seed: int = 0
    name: str = "fresh"

    def find(self, requests: Requests) -> Offers:
        """A run of a shuffled order, which begins anywhere."""
        alive = self.known.alive
        latest = int(requests.moment.max(initial=0))
        born = self.known.born[alive]
        pool = alive[born >= latest - self.hours * MILLISECONDS_PER_HOUR]
        if not len(pool):
            return Offers.none(len(requests))
        shuffled = pool[np.argsort(drawn(self.seed, pool), kind="stable")]
        begin = drawn(self.seed, requests.number) % np.uint64(len(pool))
        turn = begin.astype(np.int64)[:, None] + np.arange(min(self.quota, len(pool)))
        item = shuffled[turn % len(pool)]
        return unseen(self.known, requests, item, np.zeros(item.shape), self.quota)


@dataclass(frozen=True, eq=False)
class Precomputed:
    """What a user has not seen of a list that was made for him before; nothing where none was.

    Attributes:
        known: what is known.
        lists: from a user and a moment (ms) to the items of his list that can be shown then, the
            best first.
        quota: items of a request.
        name: of the source.
    """

    known: Knowledge
    lists: Lists
    quota: int
    name: str = "precomputed"

    def find(self, requests: Requests) -> Offers:
        """The quota's first ones."""
        asked = zip(requests.user.tolist(), requests.moment.tolist(), strict=True)
        lists = [self.lists(user, moment) for user, moment in asked]
        lengths = np.array([len(one) for one in lists], np.int64)
        there = np.arange(lengths.max(initial=0)) < lengths[:, None]  # [B, m]
        item = np.zeros(there.shape, np.int64)
        item[there] = np.concatenate([np.empty(0, np.int64), *lists])
        return unseen(self.known, requests, item, np.zeros(item.shape), self.quota, there)


def most_popular(depth: int, alive: Integers, popularity: Doubles) -> tuple[Integers, Doubles]:
    """[G, depth] items of the highest popularity [G, A] in each group, and that popularity."""
    top = highest(popularity, min(depth, len(alive)))
    return alive[top], np.take_along_axis(popularity, top, axis=1)


def drawn(seed: int, key: Integers) -> NDArray[np.uint64]:
    """64 drawn bits for each key."""
    return splitmix64(key.astype(np.uint64) ^ splitmix64(np.array([seed], np.uint64)))


def highest(value: NDArray[np.floating], number: int) -> Integers:
    """[G, number] places of the highest values of each row, the highest first."""
    if not number:
        return np.empty((len(value), 0), np.int64)
    chosen = np.argpartition(-value, number - 1, axis=1)[:, :number]
    # by place first, so that equal values do not come in the order of the partition
    chosen.sort(axis=1)
    order = np.argsort(-np.take_along_axis(value, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def unseen(
    history: History,
    requests: Requests,
    item: Integers,
    score: NDArray[np.floating],
    quota: int,
    there: NDArray[np.bool_] | None = None,
) -> Offers:
    """The first so many of [B, m] items that are there and that each user has not seen."""
    width = item.shape[1]
    user, moment = (np.repeat(of, width) for of in (requests.user, requests.moment))
    keep = ~history.seen(user, moment, item.ravel()).reshape(item.shape)
    if there is not None:
        keep &= there
    keep &= np.cumsum(keep, axis=1) <= quota
    return Offers(keep.sum(axis=1).astype(np.int64), item[keep], score[keep].astype(np.float32))
