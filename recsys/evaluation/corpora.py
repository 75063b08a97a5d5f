"""Corpora for KNN Hits@K: all posts, and the posts alive around a query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.schema import MILLISECONDS_PER_HOUR
from recsys.data.sequences import EngagementStore
from recsys.evaluation.queries import EvaluationQueries, EventsByTime
from recsys.evaluation.ranking import OUTSIDE_CORPUS, distinct_others


@dataclass(frozen=True, eq=False)
class Corpus:
    """A candidate set of posts, the same for all queries of a snapshot.

    With K at least the size of the corpus every target in it is a hit; one outside it is a miss
    at every K.

    Attributes:
        description: which posts.
        queries: Q queries.
        engagements: where their histories lie.
        num_items: V.
        snapshot: [Q] int64, the snapshot each query is answered from.
        members: [S, ceil(V / 8)] uint8, the posts of each snapshot as bits.
        sizes: [S] int64, number of posts of each snapshot.
    """

    description: str
    queries: EvaluationQueries
    engagements: EngagementStore
    num_items: int
    snapshot: NDArray[np.int64]
    members: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    @property
    def share_outside(self) -> float:
        """Share of the targets that are not in their corpus."""
        byte, bit = np.divmod(self.queries.target, 8)
        inside = self.members[self.snapshot, byte] & (128 >> bit)
        return float(np.mean(inside == 0))

    def ranks(self, rows: slice, scores: Tensor) -> NDArray[np.int64]:
        """Rank of each target of ``rows`` given scores [q, V], history removed; [q]."""
        targets = self.queries.target[rows]
        target = torch.from_numpy(targets).to(scores.device)[:, None]  # [q, 1]
        snapshots, which = np.unique(self.snapshot[rows], return_inverse=True)
        members = self._members(snapshots).to(scores.device)  # [V, s]
        of_row = torch.from_numpy(which).to(scores.device)[:, None]  # [q, 1]
        # 0 and 1 in float32: the product counts exactly below 2^24 posts
        as_good = torch.empty_like(scores)
        torch.ge(scores, scores.gather(1, target), out=as_good)  # [q, V]
        count = (as_good @ members).gather(1, of_row)[:, 0].long()  # [q]

        row, position = self.queries.history(rows)
        item = self.engagements.item[position].astype(np.int64)
        seen_row, seen = distinct_others(row, item, targets, self.num_items)
        seen_row, seen = seen_row.to(scores.device), seen.to(scores.device)
        seen_counted = as_good[seen_row, seen] * members[seen, of_row[seen_row, 0]]
        count -= torch.bincount(seen_row, seen_counted, len(count)).long()

        # a target in the corpus was counted once: as itself, which makes the count its rank
        inside = members[target[:, 0], of_row[:, 0]] > 0
        return torch.where(inside, count, OUTSIDE_CORPUS).cpu().numpy()

    def _members(self, snapshots: NDArray[np.int64]) -> Tensor:
        """The posts of some snapshots as 0 and 1, [V, s] float32."""
        bits = np.unpackbits(self.members[snapshots], axis=1, count=self.num_items)
        return torch.from_numpy(bits.T.astype(np.float32))


def all_posts(
    engagements: EngagementStore, queries: EvaluationQueries, last_ms: int, known: NDArray[np.bool_]
) -> Corpus:
    """Every post engaged with by anyone before ``last_ms`` that has an embedding.

    Args:
        engagements: of all users.
        queries: Q queries.
        last_ms: end of the period the queries are of.
        known: [V], the posts with an embedding.
    """
    member = posts_before(engagements, last_ms, len(known)) & known
    size = np.count_nonzero(member)
    return Corpus(
        f"all {size} posts engaged with before the end of the period",
        queries,
        engagements,
        len(known),
        np.zeros(len(queries), dtype=np.int64),
        np.packbits(member)[None],
        np.array([size]),
    )


def posts_before(engagements: EngagementStore, last_ms: int, num_items: int) -> NDArray[np.bool_]:
    """[V] the posts engaged with by anyone before ``last_ms``."""
    engaged = np.zeros(num_items, dtype=np.bool_)
    engaged[engagements.item[engagements.timestamp < last_ms]] = True
    return engaged


def alive_posts(
    events: EventsByTime,
    queries: EvaluationQueries,
    engagements: EngagementStore,
    known: NDArray[np.bool_],
    hours: int = 24,
) -> Corpus:
    """The posts engaged with by anyone in the ``hours`` before the query's full hour.

    Args:
        events: engagements of all users in order of time.
        queries: Q queries.
        engagements: the store.
        known: [V], the posts with an embedding.
        hours: how long a post lives after an engagement.
    """
    hour, snapshot = np.unique(queries.time // MILLISECONDS_PER_HOUR, return_inverse=True)
    members = np.empty((len(hour), -(-len(known) // 8)), dtype=np.uint8)
    sizes = np.empty(len(hour), dtype=np.int64)
    last_engaged = np.full(len(known), np.iinfo(np.int64).min)
    counted = 0
    for index, end in enumerate(events.before(hour * MILLISECONDS_PER_HOUR)):
        # of a post that occurs twice the later time stays: times ascend
        last_engaged[events.item[counted:end]] = events.time[counted:end]
        counted = end
        alive = known & (last_engaged >= (hour[index] - hours) * MILLISECONDS_PER_HOUR)
        members[index] = np.packbits(alive)
        sizes[index] = np.count_nonzero(alive)
    mean = sizes[snapshot].mean() if len(queries) else 0
    return Corpus(
        f"posts engaged with in the {hours} h before the query's hour ({mean:.0f} on average)",
        queries,
        engagements,
        len(known),
        snapshot,
        members,
        sizes,
    )
