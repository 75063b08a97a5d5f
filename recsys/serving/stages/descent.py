"""Searching a tree of items, of which each level has a model of its own.

Legend: B users, k items asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.index.faiss.search import NONE, Found
from recsys.index.hierarchy.descent import Allowed, LevelScorer, descend
from recsys.index.hierarchy.tree import Tree
from recsys.serving.pipeline import Restriction, StepUsers

#: Users of a descent.
_USERS_AT_A_TIME = 32


class BestBelow:
    """Finds the ``k`` best items below the best nodes of a tree; what may not be given is not
    looked at on the way down.

    Args:
        tree: of the items, whose positions are the slots of the catalogue.
        k: items per user.
        beam: nodes of each level that are kept.
        scorer: of some users.
        score: [n] what is given for the values [n] of a scorer.
    """

    name = "descent"

    def __init__(
        self,
        tree: Tree,
        k: int,
        beam: int,
        scorer: Callable[[StepUsers], LevelScorer],
        score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> None:
        self._tree = tree
        self._k = min(k, max(len(tree.items), 1))
        self._beam = beam
        self._scorer = scorer
        self._score = score

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, k]; fewer only where no more may be given."""
        found = Found(
            np.full((len(users), self._k), NONE, np.int64),
            np.full((len(users), self._k), np.nan, np.float32),
        )
        eligible = restriction.eligible
        if eligible is not None:
            eligible = eligible[: len(self._tree.items)]
        for start in range(0, len(users), _USERS_AT_A_TIME):
            places = np.arange(start, min(start + _USERS_AT_A_TIME, len(users)))
            exclude = None
            if restriction.exclude is not None:
                exclude = [restriction.exclude[place] for place in places.tolist()]
            reached = descend(
                self._tree,
                len(places),
                self._scorer(users.at(places)),
                self._beam,
                self._k,
                Allowed(eligible, exclude),
            )
            rank = np.arange(len(reached.user)) - np.searchsorted(reached.user, reached.user)
            best = rank < self._k
            row, column = places[reached.user[best]], rank[best]
            found.slot[row, column] = reached.item[best]
            found.score[row, column] = self._score(reached.value[best])
        return found
