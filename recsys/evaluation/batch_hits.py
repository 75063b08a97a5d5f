"""Batch Hits@K: targets ranked among the targets of a batch of queries (NxtPost §3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.groups import QueryGroup
from recsys.evaluation.queries import EvaluationQueries, flat_ranges
from recsys.evaluation.ranking import LEFT_OUT, as_good_as_target

#: EvaluationQueries in a batch: the paper's batch size.
BATCH_SIZE = 1024

#: ``batch`` of a query that is in none.
_NO_BATCH = -1


@dataclass(frozen=True, eq=False)
class BatchPools:
    """The distinct targets of each batch, without the user's history and other targets.

    Attributes:
        description: which items.
        queries: Q queries.
        engagements: where their histories lie.
        batch: [Q] int64, the batch of each query, −1 for none.
        pool: [N, P] int64, the distinct targets of each batch, padded with 0.
        pool_size: [N] int64.
        by_user: [Q] int64, queries sorted by batch and user.
        group_start: [Q] int64, where in ``by_user`` the queries of the same batch and user start.
        group_end: [Q] int64, where they end.
    """

    description: str
    queries: EvaluationQueries
    engagements: EngagementStore
    batch: NDArray[np.int64]
    pool: NDArray[np.int64]
    pool_size: NDArray[np.int64]
    by_user: NDArray[np.int64]
    group_start: NDArray[np.int64]
    group_end: NDArray[np.int64]

    def ranks(self, rows: slice, scores: Tensor) -> NDArray[np.int64]:
        """Rank of each target of ``rows`` given scores [q, V], history removed; [q]."""
        others_row, place = flat_ranges(self.group_start[rows], self.group_end[rows])
        others = self.queries.target[self.by_user[place]]
        history_row, position = self.queries.history(rows)
        history = self.engagements.item[position].astype(np.int64)
        good = as_good_as_target(
            scores,
            self.queries.target[rows],
            np.concatenate([history_row, others_row]),
            np.concatenate([history, others]),
        )

        batch = self.batch[rows]
        pool = torch.from_numpy(self.pool[batch]).to(scores.device)  # [q, P]
        size = torch.from_numpy(self.pool_size[batch]).to(scores.device)[:, None]  # [q, 1]
        real = torch.arange(pool.shape[1], device=scores.device) < size  # [q, P]
        count = (good.gather(1, pool) * real).sum(dim=1)  # [q]
        return np.where(batch == _NO_BATCH, LEFT_OUT, count.long().cpu().numpy())


def batch_pools(
    queries: EvaluationQueries,
    engagements: EngagementStore,
    num_items: int,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    group: QueryGroup | None = None,
) -> BatchPools:
    """Shuffle the queries with ``seed`` and cut them into batches.

    The last partial batch is left out, as in training; with fewer queries than ``batch_size``
    all are one smaller batch.

    Args:
        queries: Q queries.
        engagements: where their histories lie.
        num_items: V.
        seed: of the shuffle.
        batch_size: queries in a batch.
        group: batches are made of these queries alone, the others are in none.
    """
    total = len(queries)
    members = np.arange(total) if group is None else np.flatnonzero(group.chosen)
    size = min(batch_size, len(members))
    num_batches = len(members) // size if size else 0
    order = np.random.default_rng(seed).permutation(members)[: num_batches * size]
    batch = np.full(total, _NO_BATCH, dtype=np.int64)
    batch[order] = np.arange(len(order)) // max(size, 1)

    # distinct (batch, target), each at its place in the batch's pool
    pairs = np.unique(batch[order] * num_items + queries.target[order])
    pool_batch, item = np.divmod(pairs, num_items)
    pool_size = np.bincount(pool_batch, minlength=num_batches)
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(pool_size) - pool_size, pool_size)
    pool = np.zeros((num_batches, int(pool_size.max(initial=0))), dtype=np.int64)
    pool[pool_batch, place] = item

    by_user = np.lexsort((queries.user, batch))
    key = np.stack([batch[by_user], queries.user[by_user]])  # [2, Q]
    starts = np.flatnonzero(np.r_[True, (key[:, 1:] != key[:, :-1]).any(axis=0)][:total])
    ends = np.r_[starts[1:], total][: len(starts)]
    group_start, group_end = np.empty((2, total), dtype=np.int64)
    group_start[by_user] = np.repeat(starts, ends - starts)
    group_end[by_user] = np.repeat(ends, ends - starts)
    kind = "queries" if group is None else group.description
    return BatchPools(
        f"the distinct targets of a batch of {size} {kind} (shuffled with seed {seed}), without "
        "the user's other targets",
        queries,
        engagements,
        batch,
        pool,
        pool_size,
        by_user,
        group_start,
        group_end,
    )
