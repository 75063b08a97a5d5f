"""Content similarity without a model: a query is represented by items of its history.

The user embeddings go into :class:`recsys.evaluation.ranking.DotProductScorer` with the same
item embeddings, so that scores are cosines. A query without history has a zero embedding: all
items tie, and the target is ranked last.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from recsys.data.stores.engagements.store import EngagementStore
from recsys.evaluation.queries import EvaluationQueries
from recsys.evaluation.ranking import MOST_QUERIES


def last_item_embeddings(
    engagements: EngagementStore, queries: EvaluationQueries, items: Tensor
) -> Tensor:
    """The embedding of the newest item of each history, [Q, W].

    Args:
        engagements: of all users.
        queries: Q queries.
        items: [V, W], L2-normalised.
    """
    some = queries.history_events > 0
    newest = engagements.item[queries.history_end[some] - 1].astype(np.int64)
    users = items.new_zeros(len(queries), items.shape[1])
    users[torch.from_numpy(some)] = items[torch.from_numpy(newest)]
    return users


def mean_history_embeddings(
    engagements: EngagementStore, queries: EvaluationQueries, items: Tensor
) -> Tensor:
    """The normalised mean of the embeddings of each history, [Q, W].

    Args:
        engagements: of all users.
        queries: Q queries.
        items: [V, W], L2-normalised.
    """
    means = []
    for first in range(0, len(queries), MOST_QUERIES):
        rows = slice(first, first + MOST_QUERIES)
        _, position = queries.history(rows)
        engaged = torch.from_numpy(engagements.item[position].astype(np.int64))  # [H]
        lengths = torch.from_numpy(queries.history_events[rows])  # [q]
        bags = embedding_bag(engaged, items, lengths.cumsum(0) - lengths, mode="mean")  # [q, W]
        means.append(normalize(bags))
    return torch.cat(means) if means else items.new_zeros(0, items.shape[1])
