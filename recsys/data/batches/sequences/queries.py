"""Which engagements are predicted: one per user and epoch in training, all of a period after it.

Legend: Q queries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.timelines.store import first_not_before

#: Share of the examples with ``cut=window`` whose window is drawn; the others have the last one.
DRAWN_WINDOWS = 0.7


class Queries(ABC):
    """The queries of one split.

    Attributes:
        query_id: [Q] int64.
        user: [Q] user index.
        label_stop: [Q] position in the store that the labels may reach up to.
    """

    query_id: NDArray[np.int64]
    user: NDArray[np.int64]
    label_stop: NDArray[np.int64]

    def __len__(self) -> int:
        """Q, the number of queries."""
        return len(self.query_id)

    @abstractmethod
    def first_label(self, epoch: int) -> NDArray[np.int64]:
        """[Q] position in the store of the engagement that each query is to predict first."""


class FitQueries(Queries):
    """One query per user with enough engagements before the end of the fit period.

    Engagements before the start of the fit period count too, unless ``config.only_fit_labels``:
    nothing after them is needed to learn from them. The cut of a user depends on the seed, the
    epoch and the user alone.

    Args:
        engagements: the sequences.
        fit: begin and end of the fit period, ms.
        config: where to cut.
    """

    def __init__(
        self, engagements: EngagementStore, fit: tuple[int, int], config: SequenceLoaderConfig
    ) -> None:
        users = np.arange(len(engagements.offsets) - 1)
        stop = engagements.ends_before(users, fit[1])
        users = users[stop - engagements.offsets[:-1] >= config.min_events]
        start = _first_with_history(engagements, users, stop[users], config.min_history)
        full = start + config.max_length
        if config.only_fit_labels:
            start = np.maximum(start, engagements.ends_before(users, fit[0]))
        kept = start < stop[users]
        self.user = users[kept]
        self.query_id = self.user
        self.label_stop = stop[self.user]
        self._start = start[kept]
        self._full = np.maximum(full, start)[kept]
        self._config = config
        self._num_users = len(stop)

    def first_label(self, epoch: int) -> NDArray[np.int64]:
        """[Q] the cuts of an epoch, see ``SequenceLoaderConfig.cut``."""
        last = self.label_stop - 1
        if self._config.cut == "last":
            return last
        generator = np.random.default_rng((self._config.seed, epoch))
        draws = generator.random(self._num_users)[self.user]
        if self._config.cut == "random":
            return self._drawn(draws, self._start)
        # the cuts of full windows; users with fewer events have the last one
        first = np.minimum(self._full, last)
        is_drawn = generator.random(self._num_users)[self.user] < DRAWN_WINDOWS
        return np.where(is_drawn, self._drawn(draws, first), last)

    def _drawn(self, draws: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cuts that are uniform from ``first`` to the end of the fit period."""
        return first + (draws * (self.label_stop - first)).astype(np.int64)


class PeriodQueries(Queries):
    """One query per engagement of a period, in the order of time; its label is that engagement.

    Args:
        engagements: the sequences.
        first: start of the period, ms.
        last: end of the period, ms.
        max_queries: with more engagements in the period, so many of them, evenly drawn; the same
            ones for the same log. None for all.
    """

    def __init__(
        self, engagements: EngagementStore, first: int, last: int, max_queries: int | None = None
    ) -> None:
        self._positions = engagements.events_between(first, last)
        if max_queries is not None and len(self._positions) > max_queries:
            self._positions = self._positions[_drawn(len(self._positions), max_queries)]
        self.query_id = np.arange(len(self._positions))
        self.user = engagements.user[self._positions].astype(np.int64)
        self.label_stop = self._positions + 1

    def first_label(self, epoch: int) -> NDArray[np.int64]:
        """[Q] the engagements of the period, whatever the epoch."""
        return self._positions


def _drawn(number: int, most: int) -> NDArray[np.int64]:
    """Places of ``most`` of some things, evenly drawn, ascending.

    Not those of whole users: of a few users with many queries each, whose lists are much alike, a
    mean says less than its number of queries promises.
    """
    draw = np.random.default_rng(0).random(number)
    return np.sort(np.argsort(draw, kind="stable")[:most])


def _first_with_history(
    engagements: EngagementStore,
    user: NDArray[np.int64],
    stop: NDArray[np.int64],
    min_history: int,
) -> NDArray[np.int64]:
    """Each user's first position with so many engagements strictly before it, or ``stop``.

    Args:
        engagements: the sequences.
        user: [Q] users with more engagements than ``min_history`` before ``stop``.
        stop: [Q] position of each user to look up to.
        min_history: number of engagements.
    """
    start = engagements.offsets[user]
    if not min_history:
        return start
    newest = engagements.timestamp[start + min_history - 1]
    return first_not_before(engagements.timestamp, start, stop, newest + 1)
