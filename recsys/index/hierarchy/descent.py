"""Descending a tree: of every level the best nodes are kept, and their children scored.

Legend: U users, S items, L levels, n pairs of a user and a node or item, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.index.hierarchy.tree import Tree

#: Numbers [n, K] of every level so far, [n, l, K].
Scores = NDArray[np.floating]


class LevelScorer(Protocol):
    """What the networks of the levels say of the users of a descent."""

    def nodes(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        """Score nodes of a level: [n, l, K] of the levels above → [n, l + 1, K]."""
        ...

    def items(
        self, user: NDArray[np.int64], item: NDArray[np.int64], above: Scores | None
    ) -> Scores:
        """Score items, those of a user side by side: [n, L, K] → [n, L + 1, K]."""
        ...

    def value(self, scores: Scores) -> NDArray[np.float64]:
        """[n] by what nodes or items are ranked."""
        ...


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which items a descent may give.

    Attributes:
        eligible: [S] bool, for all users alike; None for all.
        exclude: [U] per user positions of items that he is not to get; None for no exclusions.
    """

    eligible: NDArray[np.bool_] | None = None
    exclude: Sequence[NDArray[np.int64]] | None = None


@dataclass(frozen=True, eq=False)
class Reached:
    """The items that a descent came to, those of a user side by side and his best first.

    Attributes:
        user: [n] int64, ascending.
        item: [n] int64.
        value: [n] float64.
        scored: [U, L + 1] int64, nodes of each level and items that were scored for each user.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    value: NDArray[np.float64]
    scored: NDArray[np.int64]


def descend(
    tree: Tree, users: int, scorer: LevelScorer, beam: int | None, k: int, allowed: Allowed
) -> Reached:
    """Find items for U users.

    A node below which a user may get nothing is not looked at, and more than ``beam`` nodes are
    kept where these hold fewer than ``k`` items for him: fewer than ``k`` are found only if there
    are no more.

    Args:
        tree: of the items.
        users: U.
        scorer: of these users.
        beam: nodes of each level that are kept for a user; None for all.
        k: items that a user is to get.
        allowed: which items.
    """
    within = _Within(tree, users, allowed)
    scored = np.zeros((users, tree.levels + 1), np.int64)
    user, node = np.arange(users), np.zeros(users, np.int64)
    above: Scores | None = None
    for level in range(tree.levels):
        if level == 0:
            parent, node = _ranges(np.zeros(users, np.int64), np.full(users, len(tree.codes[0])))
        else:
            offsets = tree.offsets[level - 1]
            parent, node = _ranges(offsets[node], offsets[node + 1])
        user = user[parent]
        above = None if above is None else above[parent]
        counts = within.counts(level, user, node)
        kept = counts > 0
        user, node, counts = user[kept], node[kept], counts[kept]
        above = scorer.nodes(level, user, node, None if above is None else above[kept])
        scored[:, level] = np.bincount(user, minlength=users)
        if beam is not None:
            best = _best(user, scorer.value(above), counts, beam, k)
            user, node, above = user[best], node[best], above[best]
    if tree.levels:
        offsets = tree.offsets[-1]
        parent, place = _ranges(offsets[node], offsets[node + 1])
    else:
        parent, place = _ranges(np.zeros(users, np.int64), np.full(users, len(tree.items)))
    user, item = user[parent], tree.items[place]
    kept = within.may_get(user, item)
    above = None if above is None else above[parent[kept]]
    user, item = user[kept], item[kept]
    value = scorer.value(scorer.items(user, item, above))
    scored[:, -1] = np.bincount(user, minlength=users)
    order = np.lexsort((item, -value, user))
    return Reached(user[order], item[order], value[order], scored)


def _ranges(
    first: NDArray[np.int64], stop: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of some ranges side by side, after the range that each is of."""
    lengths = stop - first
    owner = np.repeat(np.arange(len(first)), lengths)
    shift = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    return owner, np.arange(len(owner)) + shift


def _best(
    user: NDArray[np.int64],
    value: NDArray[np.float64],
    counts: NDArray[np.int64],
    beam: int,
    k: int,
) -> NDArray[np.int64]:
    """Positions of each user's best nodes: ``beam``, and more until they have ``k`` items."""
    order = np.lexsort((-value, user))
    starts = np.searchsorted(user[order], user[order])
    rank = np.arange(len(order)) - starts
    before = np.cumsum(counts[order]) - counts[order]
    before -= before[starts] if len(order) else 0
    kept: NDArray[np.int64] = np.sort(order[(rank < beam) | (before < k)])
    return kept


class _Within:
    """What users may get below each node."""

    def __init__(self, tree: Tree, users: int, allowed: Allowed) -> None:
        self._tree = tree
        self._eligible = allowed.eligible
        number = len(tree.items)
        self._all = np.ones(number, np.int64)
        if allowed.eligible is not None:
            self._all = allowed.eligible.astype(np.int64)
        self._keys, self._users = None, users
        if allowed.exclude is not None:
            pairs = [user * number + np.unique(items) for user, items in enumerate(allowed.exclude)]
            keys = np.concatenate([np.empty(0, np.int64), *pairs])
            self._keys = keys[self._all[keys % number] > 0]

    def counts(
        self, level: int, user: NDArray[np.int64], node: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """[n] items that a user may get below a node."""
        counts = self._tree.below(level, self._all)[node]
        if self._keys is not None:
            number = len(self._tree.codes[level])
            owner, item = np.divmod(self._keys, len(self._tree.items))
            of_node = owner * number + self._tree.nodes[level][item]
            counts = (
                counts - np.bincount(of_node, minlength=self._users * number)[user * number + node]
            )
        return counts

    def may_get(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether a user may get an item."""
        allowed = self._all[item] > 0
        if self._keys is not None:
            allowed &= ~np.isin(user * len(self._tree.items) + item, self._keys)
        return allowed
