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
        max_queries: with more engagements in the period, those of drawn users: as many users as
            have no more of them together; the same ones for the same log. None for all.
    """

    def __init__(
        self, engagements: EngagementStore, first: int, last: int, max_queries: int | None = None
    ) -> None:
        self._positions = engagements.events_between(first, last)
        if max_queries is not None and len(self._positions) > max_queries:
            user = engagements.user[self._positions].astype(np.int64)
            self._positions = self._positions[_of_drawn_users(user, max_queries)]
        self.query_id = np.arange(len(self._positions))
        self.user = engagements.user[self._positions].astype(np.int64)
        self.label_stop = self._positions + 1

    def first_label(self, epoch: int) -> NDArray[np.int64]:
        """[Q] the engagements of the period, whatever the epoch."""
        return self._positions


def _of_drawn_users(user: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Which of n positions belong to drawn users, who have at most ``most`` of them; one has more.

    Whole users are drawn, so that intervals over users are those of the whole.

    Args:
        user: [n] user index of each position.
        most: number of positions.
    """
    counts = np.bincount(user)
    order = np.argsort(np.random.default_rng(0).random(len(counts)), kind="stable")
    order = order[counts[order] > 0]
    taken = np.cumsum(counts[order]) <= most
    taken[0] = True
    drawn = np.zeros(len(counts), dtype=np.bool_)
    drawn[order[taken]] = True
    return drawn[user]


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
