"""Retrieval queries: a user, a moment, the item engaged with then, and the history before it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.batches.sequences.queries import PeriodQueries
from recsys.data.stores.engagements.store import Engagements, EngagementStore


@dataclass(frozen=True, eq=False)
class EvaluationQueries:
    """Q queries of a split; a query's id is its position.

    The history of a query are the engagements ``history_start`` to ``history_end`` of the store.

    Attributes:
        user: [Q] int64, user index.
        time: [Q] int64, ms.
        target: [Q] int64, the item engaged with.
        history_start: [Q] int64, the user's first position in the store.
        history_end: [Q] int64, first position whose moment is not strictly before the query.
    """

    user: NDArray[np.int64]
    time: NDArray[np.int64]
    target: NDArray[np.int64]
    history_start: NDArray[np.int64]
    history_end: NDArray[np.int64]

    @classmethod
    def of_period(
        cls,
        engagements: EngagementStore,
        first_ms: int,
        last_ms: int,
        max_queries: int | None = None,
    ) -> Self:
        """One query per engagement of ``[first_ms, last_ms)``, or of so many of them.

        They are the loader's of that period: ``query_id`` of its batches is a position here.
        """
        queries = PeriodQueries(engagements, first_ms, last_ms, max_queries)
        positions, user = queries.first_label(0), queries.user
        return cls(
            user,
            np.asarray(engagements.timestamp[positions]),
            engagements.item[positions].astype(np.int64),
            engagements.offsets[user],
            engagements.history_end(user, positions),
        )

    def __len__(self) -> int:
        """Q, the number of queries."""
        return len(self.user)

    @property
    def history_events(self) -> NDArray[np.int64]:
        """[Q] int64: number of engagements before the query."""
        return self.history_end - self.history_start

    def only(self, chosen: NDArray[Any]) -> Self:
        """The queries at ``chosen``, a mask [Q] or positions; their ids count anew."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def as_of(self, engagements: Engagements, moments: NDArray[np.int64]) -> Self:
        """The same queries with only the history strictly before ``moments`` [Q], ms.

        A moment after the query changes nothing: the query's own cutoff stays.
        """
        end = engagements.ends_before(self.user, moments)
        return replace(self, history_end=np.minimum(end, self.history_end))

    def history(self, rows: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in the store of the histories of ``rows``, side by side, and whose they are.

        Returns:
            row [H], counted from the first of ``rows``, and position [H].
        """
        return flat_ranges(self.history_start[rows], self.history_end[rows])


@dataclass(frozen=True, eq=False)
class EventsByTime:
    """All engagements in order of time.

    Attributes:
        time: [E] int64 ms, ascending.
        position: [E] int64, position in the store.
        item: [E] int64.
        user: [E] int64.
    """

    time: NDArray[np.int64]
    position: NDArray[np.int64]
    item: NDArray[np.int64]
    user: NDArray[np.int64]

    @classmethod
    def of(cls, engagements: EngagementStore) -> Self:
        """Sort the engagements by time."""
        order = np.argsort(engagements.timestamp, kind="stable")
        item = engagements.item[order].astype(np.int64)
        user = engagements.user[order].astype(np.int64)
        return cls(engagements.timestamp[order], order, item, user)

    def before(self, moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many engagements lie strictly before each of some moments [n], ms; [n]."""
        return np.searchsorted(self.time, moments, side="left")


def flat_ranges(
    start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the ranges ``[start, end)`` [n] side by side, and the range of each.

    >>> flat_ranges(np.array([5, 0]), np.array([7, 1]))
    (array([0, 0, 1]), array([5, 6, 0]))
    """
    lengths = end - start
    row = np.repeat(np.arange(len(start)), lengths)
    shift = np.repeat(start - (np.cumsum(lengths) - lengths), lengths)
    return row, np.arange(len(row)) + shift
