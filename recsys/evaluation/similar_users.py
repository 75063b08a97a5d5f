"""Stand-in histories from similar users: user-user similarity on engagement (NxtPost §4.4)."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.baselines.similarity import mean_history_embeddings
from recsys.evaluation.cold_start import (
    StandInCandidates,
    StandInConfig,
    StandInHistories,
    fill,
    most_engaged,
)
from recsys.evaluation.queries import EvaluationQueries, flat_ranges
from recsys.evaluation.ranking import MOST_QUERIES


def similar_user_stand_ins(
    engagements: EngagementStore,
    queries: EvaluationQueries,
    items: Tensor,
    config: StandInConfig,
) -> StandInHistories:
    """The items most engaged with by the users most similar to the query's user.

    Users are compared by the cosine of the mean content embeddings of their histories. A
    neighbour's history is that of the last refresh before the query, the query's own is that of
    the query. From every neighbour the newest ``fill_to`` engagements strictly before the query
    count. Queries without history get none: combine with
    :func:`recsys.evaluation.cold_start.popular_stand_ins` by ``or_else``.

    Args:
        engagements: the store.
        queries: Q queries.
        items: [V, W], L2-normalised.
        config: who gets how many, from how many neighbours.
    """
    events = queries.history_events
    needy = np.flatnonzero((events > 0) & (events <= config.most_events))
    refresh = config.refresh_hours * MILLISECONDS_PER_HOUR
    periods = queries.time[needy] // refresh
    found = [StandInCandidates.none()]
    for period in np.unique(periods):
        users = _candidates(engagements, int(period * refresh), config.neighbour_events)
        if not len(users):
            continue
        index = faiss.IndexFlatIP(items.shape[1])
        index.add(mean_history_embeddings(engagements, users, items).numpy())
        asking = needy[periods == period]
        for first in range(0, len(asking), MOST_QUERIES):
            some = asking[first : first + MOST_QUERIES]
            own = mean_history_embeddings(engagements, queries.only(some), items).numpy()
            _, place = index.search(own, min(config.neighbours, len(users)))  # [n, neighbours]
            neighbour = users.user[place]
            top = _newest_of(engagements, neighbour, queries.time[some], config)
            found.append(StandInCandidates(some, top))
    return fill(found, engagements, queries, config.fill_to)


def _candidates(engagements: EngagementStore, moment: int, least: int) -> EvaluationQueries:
    """Users with at least ``least`` engagements strictly before a moment, as queries of then."""
    end = engagements.ends_before(np.arange(len(engagements.offsets) - 1), moment)
    user = np.flatnonzero(end - engagements.offsets[:-1] >= least)
    time = np.full(len(user), moment)
    none = np.zeros(len(user), dtype=np.int64)
    return EvaluationQueries(user, time, none, engagements.offsets[user], end[user])


def _newest_of(
    engagements: EngagementStore,
    neighbour: NDArray[np.int64],
    time: NDArray[np.int64],
    config: StandInConfig,
) -> NDArray[np.int64]:
    """Items most engaged with by the neighbours [n, k] of n queries before their time; [n, M]."""
    num_queries, count = neighbour.shape
    user = neighbour.reshape(-1)
    end = engagements.ends_before(user, np.repeat(time, count))
    start = np.maximum(engagements.offsets[user], end - config.fill_to)
    pair, position = flat_ranges(start, end)
    row = pair // count
    order = np.lexsort((position, engagements.timestamp[position], row))
    keep = config.fill_to + config.most_events
    return most_engaged(row[order], position[order], engagements, num_queries, keep)
