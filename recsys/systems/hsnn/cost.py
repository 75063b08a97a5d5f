"""What a query costs, by the operations of the networks as they compute it.

Legend: L levels, n pairs of a user and a node or item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.flops import count_flops
from recsys.index.hierarchy.scoring import PAIRS_AT_A_TIME, USERS_AT_A_TIME, ItemTree
from recsys.systems.hsnn.scoring import Scoring


@dataclass(frozen=True, eq=False)
class Cost:
    """Floating-point operations of the parts of a query; embeddings of items are there already.

    Attributes:
        user: of all user towers, once.
        pairs: [L + 1] of one node of each level, and of one item, each with the levels above it.
    """

    user: float
    pairs: NDArray[np.float64]

    def of(self, scored: NDArray[np.float64]) -> float:
        """Of a query for which so many nodes of each level and items [L + 1] are scored."""
        return float(self.user + scored @ self.pairs)


def cost_of(scoring: Scoring, items: ItemTree) -> Cost:
    """Count what whole blocks of users, nodes and items take, of which nothing is filled up."""
    nobody = np.zeros(USERS_AT_A_TIME, np.int64)
    of_users = count_flops(lambda: scoring.users(nobody, nobody))
    users = scoring.users(nobody, nobody)
    user = first = np.zeros(PAIRS_AT_A_TIME, np.int64)
    index, embeddings = items.indices[first], items.embeddings[first]
    levels = len(items.centres)

    def score(level: int) -> None:
        """A block of the nodes of a level, or of items, as those above it were scored too."""
        if level < levels:
            own = scoring.nodes(level, users, user, items.centres[level][first])
        else:
            own = scoring.pairs(users, user, index, embeddings)
        scoring.values(own.unsqueeze(1).expand(-1, level + 1, -1))

    of_pairs = [count_flops(partial(score, level)) for level in range(levels + 1)]
    return Cost(of_users / USERS_AT_A_TIME, np.array(of_pairs) / PAIRS_AT_A_TIME)
