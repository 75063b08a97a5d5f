"""Items in the nodes of a hierarchy.

Legend: S items, L levels, n_l nodes of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

#: Of so many possible nodes it is a collapse where one has a larger share of the items than this,
#: or where the entropy is less, which the square root of their number has too.
_ENOUGH_NODES, _MOST, _LEAST_ENTROPY = 4, 0.5, 0.5
#: Nodes of a level whose items are noted, at most.
_NOTED_NODES = 400


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes that have an item, level by level; children of a node lie side by side.

    Items of the codes [[1, 0], [0, 2], [1, 0]] give the nodes (0) and (1) of the first level, and
    (0, 2) and (1, 0) of the second; the first has item 1, the second items 0 and 2:
    ``items=[1, 0, 2]``, ``offsets=[[0, 1, 2], [0, 1, 3]]``.

    Attributes:
        codes: of every level [n_l, l] int64, what each node is called.
        offsets: of every level [n_l + 1]: children of node n are ``offsets[n]`` to
            ``offsets[n + 1]`` of the next level, or, of the last one, of ``items``.
        items: [S] positions of the items, by their node.
        nodes: of every level [S], the node of each item by its position.
    """

    codes: list[NDArray[np.int64]]
    offsets: list[NDArray[np.int64]]
    items: NDArray[np.int64]
    nodes: list[NDArray[np.int64]]

    @classmethod
    def of(cls, codes: NDArray[np.int64]) -> Self:
        """The tree of items [S] by their codes [S, L]."""
        number, levels = codes.shape
        items = np.lexsort(codes.T[::-1]) if levels else np.arange(number)
        ordered = codes[items]
        names, firsts, nodes = [], [], []
        begins = np.zeros(number, np.bool_)
        begins[:1] = True
        for level in range(levels):
            begins[1:] |= ordered[1:, level] != ordered[:-1, level]
            first = np.flatnonzero(begins)
            of_item = np.empty(number, np.int64)
            of_item[items] = np.cumsum(begins) - 1
            names.append(ordered[first, : level + 1])
            firsts.append(first)
            nodes.append(of_item)
        offsets = []
        for level, first in enumerate(firsts):
            below = firsts[level + 1] if level + 1 < levels else np.arange(number)
            offsets.append(np.append(np.searchsorted(below, first), len(below)))
        return cls(names, offsets, items, nodes)

    @property
    def levels(self) -> int:
        """L."""
        return len(self.codes)

    def below(self, level: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n_l] sums over the items below each node of a level of [S] what each counts."""
        return np.bincount(self.nodes[level], counts, len(self.codes[level])).astype(np.int64)


@dataclass(frozen=True)
class LevelHealth:
    """How items are spread over the nodes of a level.

    Attributes:
        possible: nodes that there could be.
        used: nodes with an item.
        entropy: of an item's node, over that of an even spread on all possible nodes, or on as many
            as there are items; from 0 to 1.
        largest_over_mean: items of the largest node over the mean of those used.
        largest_share: of all items.
    """

    possible: int
    used: int
    entropy: float
    largest_over_mean: float
    largest_share: float

    @property
    def has_collapsed(self) -> bool:
        """Whether one node has most of the items, or few have nearly all, of at least four."""
        uneven = self.largest_share > _MOST or self.entropy < _LEAST_ENTROPY
        return self.possible >= _ENOUGH_NODES and uneven

    def collapse(self, level: int, mend: str) -> str:
        """A sentence that names a collapse of a level, and what one does against it."""
        return (
            f"Level {level} has collapsed: {self.largest_share:.0%} of the items are in the "
            f"largest of its {self.used:,} nodes, of {self.possible:,} that there could be; "
            f"{mend}, or take another model.net.index.method."
        )

    @classmethod
    def of(cls, nodes: NDArray[np.int64], possible: int) -> Self:
        """Of the nodes [S] of some items, at least one."""
        counts = np.bincount(nodes)
        counts = counts[counts > 0]
        share = counts / counts.sum()
        even = np.log(max(min(possible, len(nodes)), 1))
        entropy = float(-(share * np.log(share)).sum() / even) if even > 0 else 1.0
        return cls(
            possible,
            len(counts),
            abs(entropy),
            float(counts.max() / counts.mean()),
            float(share.max()),
        )


@dataclass(frozen=True)
class Occupancy:
    """How many items are in the nodes of a level, the fullest first.

    Attributes:
        possible: nodes that there could be, no more than there are items.
        items: of the tree.
        rank: of some nodes, 1 for the fullest; all where there are few.
        size: items of these.
    """

    possible: int
    items: int
    rank: list[int]
    size: list[int]

    @classmethod
    def of(cls, nodes: NDArray[np.int64], possible: int) -> Self:
        """Of the nodes [S] of some items."""
        counts = -np.sort(-np.bincount(nodes))
        counts = counts[counts > 0]
        rank = np.unique(np.geomspace(1, len(counts), _NOTED_NODES).round().astype(np.int64))
        if len(counts) <= _NOTED_NODES:
            rank = np.arange(1, len(counts) + 1)
        return cls(min(possible, len(nodes)), len(nodes), rank.tolist(), counts[rank - 1].tolist())


def tree_health(tree: Tree, codes: Sequence[int]) -> list[LevelHealth]:
    """How even the nodes of each level are; ``codes`` divide every node of the level above."""
    return [LevelHealth.of(*one) for one in _levels(tree, codes)]


def tree_occupancy(tree: Tree, codes: Sequence[int]) -> list[Occupancy]:
    """How many items are in the nodes of each level."""
    return [Occupancy.of(*one) for one in _levels(tree, codes)]


def _levels(tree: Tree, codes: Sequence[int]) -> list[tuple[NDArray[np.int64], int]]:
    """Of each level the nodes of the items, and how many there could be."""
    possible = np.cumprod(np.array(codes, dtype=np.float64))
    return [(nodes, int(most)) for nodes, most in zip(tree.nodes, possible, strict=True)]
