"""What is counted of items and users, and what is expected of a pair by that.

Legend: B requests, n pairs or events, V items, G groups of users, K tasks, C values of a column.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.serving.funnel.knowledge import NONE

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]

#: What is popular of late, and what users like, is halved in so many hours.
POPULAR_HOURS, TASTE_HOURS = 6.0, 168.0
#: Impressions that a prior weighs: the rate of all items, and users like all others.
_PRIOR, _TASTE_PRIOR = 20.0, 20.0
#: Favourites that are told of a user.
_FAVOURITES = 8


class ItemCounts:
    """Impressions and actions of items: of late, by groups of users, and in all.

    Args:
        groups: G of users, from 1; 0 are those of whom it is not known.
        items: V.
        binary: [K] which of the tasks are probabilities.
        since: ms.
    """

    def __init__(self, groups: int, items: int, binary: NDArray[np.bool_], since: int) -> None:
        shape = (1 + groups, items)
        self._recently_shown, self._recently_engaged = np.zeros(shape), np.zeros(shape)
        self._all_recently = np.zeros(2)  # shown, engaged
        self._binary = binary
        self._shown, self._done = np.zeros(items), np.zeros((items, len(binary)))
        self._all_shown, self._all_done = 10.0, np.full(len(binary), 0.1)
        self._hour = since // MILLISECONDS_PER_HOUR

    def empty(self, since: int) -> ItemCounts:
        """One of the same items and groups that has counted nothing."""
        groups, items = self._recently_shown.shape
        return type(self)(groups - 1, items, self._binary, since)

    def grown(self, items: int) -> ItemCounts:
        """A copy with further items, of which nothing is counted."""
        found = copy(self)
        for name, counts in vars(self).items():
            if isinstance(counts, np.ndarray):
                setattr(found, name, counts.copy())
        more = items - len(self._shown)
        found._recently_shown = np.pad(self._recently_shown, ((0, 0), (0, more)))
        found._recently_engaged = np.pad(self._recently_engaged, ((0, 0), (0, more)))
        found._shown = np.pad(self._shown, (0, more))
        found._done = np.pad(self._done, ((0, more), (0, 0)))
        return found

    def kept(self, moment: int) -> float:
        """Share of what was popular that is left at a moment (ms), by whole hours."""
        hours = moment // MILLISECONDS_PER_HOUR - self._hour
        return float(0.5 ** (max(hours, 0) / POPULAR_HOURS))

    def left(self, moment: Integers) -> Doubles:
        """[n] share that is left of what happened at some moments (ms), by whole hours."""
        hours = self._hour - moment // MILLISECONDS_PER_HOUR
        share: Doubles = 0.5 ** (np.maximum(hours, 0) / POPULAR_HOURS)
        return share

    def advance(self, moment: int) -> None:
        """Forget what has faded by a moment, ms."""
        if (kept := self.kept(moment)) < 1:
            for faded in (self._recently_shown, self._recently_engaged, self._all_recently):
                faded *= kept
            self._hour = moment // MILLISECONDS_PER_HOUR

    def add_shown(self, group: Integers, item: Integers, weight: Doubles | float = 1.0) -> None:
        """Count impressions [n]; ``weight`` is what is left of those that were a while ago."""
        np.add.at(self._recently_shown, (group, item), weight)
        np.add.at(self._shown, item, 1)
        self._all_recently[0] += np.broadcast_to(weight, item.shape).sum()
        self._all_shown += len(item)

    def add_engaged(self, group: Integers, item: Integers, weight: Doubles | float = 1.0) -> None:
        """Count engagements [n]."""
        np.add.at(self._recently_engaged, (group, item), weight)
        self._all_recently[1] += np.broadcast_to(weight, item.shape).sum()

    def add_done(self, item: Integers, outcomes: Doubles) -> None:
        """Add up what was done with items [n], by task [n, K]."""
        np.add.at(self._done, item, outcomes)
        self._all_done += outcomes.sum(axis=0)

    def popularity(self, item: Integers) -> Doubles:
        """[1 + G, n] engagements of late, those of all users first."""
        engaged = self._recently_engaged[:, item]
        return np.concatenate([engaged.sum(axis=0, keepdims=True), engaged[1:]])

    def engagements(self, item: Integers) -> Doubles:
        """[n] engagements of late, of all users."""
        engaged: Doubles = self._recently_engaged[:, item].sum(axis=0)
        return engaged

    def mean_rate(self, kept: float = 1.0) -> float:
        """How often an item is engaged with of late when it is shown."""
        shown, engaged = self._all_recently
        return float((engaged * kept + 1) / (shown * kept + 10))

    def expected(self, item: Integers, taste: Doubles) -> Doubles:
        """[n, K] what is to be expected: the items' rates, times the users' tastes [n].

        An item's rates are drawn to those of all items by a prior.
        """
        of_all = self._all_done / self._all_shown
        rates = (self._done[item] + _PRIOR * of_all) / (self._shown[item][:, None] + _PRIOR)
        found = rates * taste[:, None]
        return np.where(self._binary, np.minimum(found, 1.0), found)

    def affinity(self, item: Integers, taste: Doubles, kept: float = 1.0) -> Doubles:
        """[n] how likely an engagement is, by popularity of late and the users' tastes [n]."""
        shown = self._recently_shown[:, item].sum(axis=0) * kept
        engaged = self._recently_engaged[:, item].sum(axis=0) * kept
        found: Doubles = (engaged + 1) / (shown + _PRIOR) * taste
        return found


def taste(did: Doubles, was_shown: Doubles, mean_rate: float) -> Doubles:
    """[n] how much more often than all users some engage with a topic, drawn to 1 by a prior.

    Args:
        did: [n] engagements of the user with the topic.
        was_shown: [n] impressions.
        mean_rate: of all users and items.
    """
    found: Doubles = (did + _TASTE_PRIOR * mean_rate) / ((was_shown + _TASTE_PRIOR) * mean_rate)
    return found


def favourites(engaged: NDArray[np.floating]) -> Integers:
    """The values that users engage with most, the best first; 0 for none.

    Args:
        engaged: [B, C] how often with each value of a column.

    Returns:
        [B, f].
    """
    number = min(_FAVOURITES, engaged.shape[1])
    chosen = np.argpartition(-engaged, number - 1, axis=1)[:, :number]
    chosen.sort(axis=1)
    own = np.take_along_axis(engaged, chosen, axis=1)
    order = np.argsort(-own, axis=1, kind="stable")
    found = np.take_along_axis(chosen, order, axis=1)
    return np.where(np.take_along_axis(own, order, axis=1) > 0, found, NONE)
