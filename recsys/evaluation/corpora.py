"""Corpora for KNN Hits@K: all items, and the items alive around a query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.ranking import OUTSIDE_CORPUS, as_good_as_target


@dataclass(frozen=True, eq=False)
class Corpus:
    """A candidate set of items, the same for all queries of a snapshot.

    With K at least the size of the corpus every target in it is a hit; one outside it is a miss
    at every K.

    Attributes:
        description: which items.
        queries: Q queries.
        engagements: where their histories lie.
        num_items: V.
        snapshot: [Q] int64, the snapshot each query is answered from.
        members: [S, ceil(V / 8)] uint8, the items of each snapshot as bits.
        sizes: [S] int64, number of items of each snapshot.
    """

    description: str
    queries: EvaluationQueries
    engagements: EngagementStore
    num_items: int
    snapshot: NDArray[np.int64]
    members: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    def ranks(self, rows: slice, scores: Tensor) -> NDArray[np.int64]:
        """Rank of each target of ``rows`` given scores [q, V], history removed; [q]."""
        targets, snapshot = self.queries.target[rows], self.snapshot[rows]
        row, position = self.queries.history(rows)
        history = self.engagements.item[position].astype(np.int64)
        count = self._members_among(snapshot, as_good_as_target(scores, targets, row, history))

        # a target in the corpus was counted once: as itself, which makes the count its rank
        return np.where(self._contains(snapshot, targets), count, OUTSIDE_CORPUS)

    def _members_among(self, snapshot: NDArray[np.int64], as_good: Tensor) -> NDArray[np.int64]:
        """How many items marked in ``as_good`` [q, V] are in each query's ``snapshot`` [q]; [q].

        Of several snapshots the members are gathered: with few of the items in each, a product
        with all of them would cost more than the scores did.
        """
        snapshots, which = np.unique(snapshot, return_inverse=True)
        count = np.empty(len(which), dtype=np.int64)
        for number, members in enumerate(self.members[snapshots]):
            of_snapshot = np.flatnonzero(which == number)
            member = torch.from_numpy(np.unpackbits(members, count=self.num_items))
            member = member.to(as_good.device)
            if len(snapshots) == 1:
                found = as_good @ member.to(as_good)
            else:
                items = member.nonzero()[:, 0]
                row = torch.from_numpy(of_snapshot).to(as_good.device)
                found = as_good[row[:, None], items].sum(dim=1)
            count[of_snapshot] = found.long().cpu().numpy()
        return count

    def _contains(self, snapshot: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each item [n] is in its snapshot [n]."""
        byte, bit = np.divmod(item, 8)
        return (self.members[snapshot, byte] & (128 >> bit)) > 0


def all_items(
    engagements: EngagementStore, queries: EvaluationQueries, last_ms: int, known: NDArray[np.bool_]
) -> Corpus:
    """Every item engaged with by anyone before ``last_ms`` that has an embedding.

    Args:
        engagements: of all users.
        queries: Q queries.
        last_ms: end of the period the queries are of.
        known: [V], the items with an embedding.
    """
    member = items_before(engagements, last_ms, len(known)) & known
    size = np.count_nonzero(member)
    return Corpus(
        f"all {size} items engaged with before the end of the period",
        queries,
        engagements,
        len(known),
        np.zeros(len(queries), dtype=np.int64),
        np.packbits(member)[None],
        np.array([size]),
    )


def items_before(engagements: EngagementStore, last_ms: int, num_items: int) -> NDArray[np.bool_]:
    """[V] the items engaged with by anyone before ``last_ms``."""
    engaged = np.zeros(num_items, dtype=np.bool_)
    engaged[engagements.item[engagements.timestamp < last_ms]] = True
    return engaged


def alive_items(
    events: EventsByTime,
    queries: EvaluationQueries,
    engagements: EngagementStore,
    known: NDArray[np.bool_],
    hours: int = 24,
) -> Corpus:
    """The items engaged with by anyone in the ``hours`` before the query's full hour.

    Args:
        events: engagements of all users in order of time.
        queries: Q queries.
        engagements: the store.
        known: [V], the items with an embedding.
        hours: how long an item lives after an engagement.
    """
    hour, snapshot = np.unique(queries.time // MILLISECONDS_PER_HOUR, return_inverse=True)
    members = np.empty((len(hour), -(-len(known) // 8)), dtype=np.uint8)
    sizes = np.empty(len(hour), dtype=np.int64)
    last_engaged = np.full(len(known), np.iinfo(np.int64).min)
    counted = 0
    for index, end in enumerate(events.before(hour * MILLISECONDS_PER_HOUR)):
        # of an item that occurs twice the later time stays: times ascend
        last_engaged[events.item[counted:end]] = events.time[counted:end]
        counted = end
        alive = known & (last_engaged >= (hour[index] - hours) * MILLISECONDS_PER_HOUR)
        members[index] = np.packbits(alive)
        sizes[index] = np.count_nonzero(alive)
    mean = sizes[snapshot].mean() if len(queries) else 0
    return Corpus(
        f"items engaged with in the {hours} h before the query's hour ({mean:.0f} on average)",
        queries,
        engagements,
        len(known),
        snapshot,
        members,
        sizes,
    )
