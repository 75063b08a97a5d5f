"""Stand-in histories for users with no or few engagements (NxtPost §4.4).

A stand-in event is a real engagement of somebody else, strictly before the query. It is put before
the user's own events, so that these stay the newest.

Legend: Q queries, E stand-in events, G groups of users, M items kept of a group, V item indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.core.bounds import Count, CountOrZero, Length, Settings, WholeHours
from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.engagements.store import Engagements, EngagementStore
from recsys.evaluation.groups import MARGINAL_EVENTS
from recsys.evaluation.queries import EvaluationQueries, EventsByTime, flat_ranges


@dataclass(frozen=True)
class StandInConfig(Settings):
    """Who gets a stand-in history, and of what.

    Attributes:
        most_events: a query with more own events gets none.
        fill_to: own and stand-in events together; at most the model's ``max_length``.
        window_hours: popular items: how long before the query's full hour engagements count.
        least_engagements: popular items: a group with fewer in the window uses everybody's.
        neighbours: similar users: how many.
        neighbour_events: similar users: the fewest engagements a neighbour has; more than
            ``most_events``, so that nobody is a neighbour of himself.
        refresh_hours: similar users: how long embeddings of neighbours are kept.
    """

    most_events: CountOrZero = MARGINAL_EVENTS
    fill_to: Length = 10
    window_hours: WholeHours = 24
    least_engagements: CountOrZero = 100
    neighbours: Count = 10
    neighbour_events: CountOrZero = MARGINAL_EVENTS + 1
    refresh_hours: WholeHours = 24

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        super().__post_init__()
        if self.fill_to <= self.most_events:
            raise ConfigError(
                f"fill_to is {self.fill_to}; it must be above most_events ({self.most_events}), "
                "or users with that many events get no stand-in."
            )
        if self.neighbour_events <= self.most_events:
            raise ConfigError(
                f"neighbour_events is {self.neighbour_events}; it must be above most_events "
                f"({self.most_events}), or a user could stand in for himself."
            )


@dataclass(frozen=True, eq=False)
class StandInHistories:
    """Stand-in events of Q queries, each query's oldest first.

    Attributes:
        lengths: [Q] int64 stand-in events, 0 for a query that needs none; sums to E.
        position: [E] int64 position in the store.
    """

    lengths: NDArray[np.int64]
    position: NDArray[np.int64]

    def rows(self, queries: NDArray[np.int64]) -> Self:
        """The stand-ins of some queries, in their order."""
        end = np.cumsum(self.lengths)[queries]
        _, event = flat_ranges(end - self.lengths[queries], end)
        return replace(self, lengths=self.lengths[queries], position=self.position[event])

    def or_else(self, other: StandInHistories) -> StandInHistories:
        """These, and those of ``other`` for queries that have none here."""
        query = np.arange(len(self.lengths)) + len(self.lengths) * (self.lengths == 0)
        both = StandInHistories(
            np.concatenate([self.lengths, other.lengths]),
            np.concatenate([self.position, other.position]),
        )
        return both.rows(query)

    def columns(self, engagements: Engagements) -> dict[str, Tensor]:
        """``item``, ``action_type``, ``surface``, ``timestamp`` as a batch has them, [E] int64."""
        return {
            name: torch.from_numpy(getattr(engagements, name)[self.position].astype(np.int64))
            for name in ("item", "action_type", "surface", "timestamp")
        }

    def prepend_to(self, batch: SequenceBatch, engagements: Engagements) -> SequenceBatch:
        """The batch with the stand-in events of its queries before their own events.

        A stand-in event that is newer than the user's oldest own event is given the time of that
        one, so that times ascend.

        Args:
            batch: B queries, on the CPU; ``query_id`` is their position among the Q queries.
            engagements: the store of the positions.
        """
        chosen = self.rows(batch.query_id.numpy())
        extra = torch.from_numpy(chosen.lengths)  # [B]
        lengths = batch.lengths + extra
        start = lengths.cumsum(0) - lengths  # [B]
        extra_row, extra_place = _places(start, extra)
        _, own_place = _places(start + extra, batch.lengths)
        columns = chosen.columns(engagements)
        has_own = batch.lengths > 0
        oldest = torch.full_like(batch.request_time, torch.iinfo(torch.int64).max)
        first_own = batch.lengths.cumsum(0) - batch.lengths
        oldest[has_own] = batch.timestamp[first_own[has_own]]
        columns["timestamp"] = torch.minimum(columns["timestamp"], oldest[extra_row])
        joined: dict[str, Any] = {"pools": {}}  # those of the batch count not for other events
        for name, column in columns.items():
            joined[name] = column.new_empty(len(column) + len(own_place))
            joined[name][extra_place] = column
            joined[name][own_place] = getattr(batch, name)
        return replace(batch, lengths=lengths, **joined)


@dataclass(frozen=True, eq=False)
class StandInCandidates:
    """Candidates for the stand-ins of n queries.

    Attributes:
        query: [n] int64.
        position: [n, M] int64 position in the store, best first, −1 for none.
    """

    query: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def none(cls) -> Self:
        """No query."""
        return cls(np.empty(0, np.int64), np.empty((0, 0), np.int64))


def attribute_groups(user_categorical: NDArray[np.integer]) -> NDArray[np.int64]:
    """Users with equal attributes share a group.

    Args:
        user_categorical: [U, F], the attributes that count.

    Returns:
        [U] group, 0 to G − 1.
    """
    _, group = np.unique(user_categorical, axis=0, return_inverse=True)
    return group.reshape(-1)


def popular_stand_ins(
    events: EventsByTime,
    engagements: EngagementStore,
    queries: EvaluationQueries,
    groups: NDArray[np.int64],
    config: StandInConfig,
) -> StandInHistories:
    """The items most engaged with by users of the same group, as of the query's full hour.

    Each item is represented by its newest engagement in the group. An item of the user's own
    history is skipped. Queries in the first hours of a log may get fewer, or none.

    Args:
        events: engagements in order of time.
        engagements: the store.
        queries: Q queries.
        groups: [U], see :func:`attribute_groups`.
        config: who gets how many, from which window.
    """
    needy = np.flatnonzero(queries.history_events <= config.most_events)
    hours = queries.time[needy] // MILLISECONDS_PER_HOUR
    keep = config.fill_to + config.most_events
    everybody = int(groups.max(initial=0)) + 1
    found = [StandInCandidates.none()]
    for hour in np.unique(hours):
        bounds = np.array([hour - config.window_hours, hour]) * MILLISECONDS_PER_HOUR
        first, last = events.before(bounds)
        position, group = events.position[first:last], groups[events.user[first:last]]
        rows = np.concatenate([group, np.full(len(group), everybody)])
        top = most_engaged(rows, np.tile(position, 2), engagements, everybody + 1, keep)
        large = np.bincount(group, minlength=everybody) >= config.least_engagements
        asking = needy[hours == hour]
        of_query = groups[queries.user[asking]]
        of_query = np.where(large[of_query], of_query, everybody)
        found.append(StandInCandidates(asking, top[of_query]))
    return fill(found, engagements, queries, config.fill_to)


def most_engaged(
    row: NDArray[np.int64],
    position: NDArray[np.int64],
    engagements: EngagementStore,
    num_rows: int,
    keep: int,
) -> NDArray[np.int64]:
    """The items with most engagements of each row, each by its newest engagement.

    Args:
        row: [n], 0 to ``num_rows`` − 1.
        position: [n] engagements in the store, of each row in order of time.
        engagements: the store.
        num_rows: number of rows.
        keep: M, items kept of a row.

    Returns:
        [num_rows, M] position in the store, most engaged first (ties: the lower item index), −1
        where a row has fewer items.
    """
    item = engagements.item[position].astype(np.int64)
    num_items = int(item.max(initial=0)) + 1
    # reversed, so that the first of equal pairs is the newest
    pair, last, count = np.unique(
        (row * num_items + item)[::-1], return_index=True, return_counts=True
    )
    newest = position[::-1][last]
    pair_row = pair // num_items
    order = np.lexsort((pair, -count, pair_row))
    per_row = np.bincount(pair_row, minlength=num_rows)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    kept = place < keep
    top = np.full((num_rows, keep), -1, dtype=np.int64)
    top[pair_row[kept], place[kept]] = newest[order][kept]
    return top


def fill(
    found: list[StandInCandidates],
    engagements: EngagementStore,
    queries: EvaluationQueries,
    fill_to: Length,
) -> StandInHistories:
    """The best candidates that are not in the user's own history, up to ``fill_to`` events.

    Args:
        found: candidates; each query at most once.
        engagements: the store.
        queries: Q queries.
        fill_to: own and stand-in events together.
    """
    whose, chosen = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for part in found:
        item = np.where(part.position >= 0, engagements.item[part.position], -1)  # [n, M]
        own = queries.only(part.query)
        fresh = part.position >= 0
        for age in range(1, int(own.history_events.max(initial=0)) + 1):
            has = own.history_events >= age
            own_item = np.where(has, engagements.item[np.where(has, own.history_end - age, 0)], -2)
            fresh &= item != own_item[:, None]
        wanted = fill_to - own.history_events  # [n]
        fresh &= np.cumsum(fresh, axis=1) <= wanted[:, None]
        row, place = np.nonzero(fresh)
        whose.append(part.query[row])
        chosen.append(part.position[row, place])
    query, position = np.concatenate(whose), np.concatenate(chosen)
    order = np.lexsort((position, engagements.timestamp[position], query))
    return StandInHistories(np.bincount(query, minlength=len(queries)), position[order])


def _places(start: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Row and place of ``lengths`` [B] elements that begin at ``start`` [B]."""
    row, place = flat_ranges(start.numpy(), (start + lengths).numpy())
    return torch.from_numpy(row), torch.from_numpy(place)
