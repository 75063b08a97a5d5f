"""How the items of an index lie in its tree, what has changed since another, and what is astray.

Legend: S items, L levels, n items that two indexes have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.core.bounds import Settings
from recsys.core.errors import ConfigError
from recsys.data.stores.vocabulary import UNKNOWN_INDEX
from recsys.index.faiss.search import NONE
from recsys.index.folder import load_index, read_index, read_served
from recsys.index.hierarchy.exported import TreeItems, load_networks
from recsys.index.hierarchy.item_index import HierarchyIndex
from recsys.index.hierarchy.tree import LevelHealth, tree_health
from recsys.index.usable_items import POST_ID


@dataclass(frozen=True)
class IndexReportConfig(Settings):
    """What index of a tree to report on.

    Attributes:
        index: its folder, or that of its snapshots.
        against: another index of a tree, for example an earlier snapshot: which items have
            changed their node since.
        dataset: a prepared data set, by whose features items are looked up anew; None takes the
            one that the items were read from last.
        trust: load networks that are not in the user's list of trusted artifacts.
    """

    index: str = MISSING
    against: str | None = None
    dataset: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class Changes:
    """What has become of items since another index.

    Attributes:
        common: items that both have.
        came: items that the other one does not have.
        went: items that it alone has.
        moved: of each level the common items that are in another node.
        same_networks: nodes are compared by their codes. Otherwise codes mean nothing to each
            other, and a node is the one of the other index with which it shares most items: pairs
            are taken in the order of what they share, each node once.
    """

    common: int
    came: int
    went: int
    moved: list[int]
    same_networks: bool


@dataclass(frozen=True)
class TreeReport:
    """How the items of an index lie in its tree.

    Attributes:
        items: S.
        levels: how even the nodes of each are; nodes without an item are those possible that are
            not used.
        misplaced: items whose features, as the data set has them now, belong to another node.
        not_in_tree: items of the log that are in no node: removed, left out, or new.
        new: of these those that the log first had since items were added last.
        not_in_log: items in the tree that the log does not have.
        changes: since another index; None without one.
    """

    items: int
    levels: list[LevelHealth]
    misplaced: int
    not_in_tree: int
    new: int
    not_in_log: int
    changes: Changes | None


def report_tree(config: IndexReportConfig) -> TreeReport:
    """Look at an index of a tree.

    Raises:
        ArtifactError: index or networks are damaged, or of different generations.
        ConfigError: an index is none of a tree.
        DataError: the data set cannot be read.
    """

    def read(folder: Path) -> tuple[HierarchyIndex, TreeItems]:
        index = _of_tree(read_index(folder), config.index)
        networks = load_networks(folder, index, config.trust)
        return index, TreeItems.of(networks, config.dataset or index.manifest.dataset)

    index, items = read_served(Path(config.index), read)
    changes = None
    if config.against is not None:
        other = _of_tree(load_index(config.against), config.against)
        changes = changes_between(other, index)
    ids = index.items[POST_ID]
    in_log = items.dataset.vocabulary("item").indices(ids).to_numpy() != UNKNOWN_INDEX
    # nobody but the index knows the features of those that the log does not have
    now = items.placed(index.items.filter(pl.Series(in_log))).codes
    every, new = items.in_log(), items.in_log(since=index.manifest.seen_until)
    return TreeReport(
        len(index),
        tree_health(index.tree, index.manifest.levels) if len(index) else [],
        int((now != index.codes[in_log]).any(axis=1).sum()),
        int((index.slots(every) == NONE).sum()),
        int((index.slots(new) == NONE).sum()),
        int((~in_log).sum()),
        changes,
    )


def changes_between(before: HierarchyIndex, after: HierarchyIndex) -> Changes:
    """What has become of the items of an index in a later one."""
    slots = before.slots(after.items[POST_ID])
    common = slots != NONE
    same = before.manifest.model == after.manifest.model
    moved = []
    for level in range(min(before.codes.shape[1], after.codes.shape[1])):
        if same:
            names = slice(0, level + 1)
            differ = before.codes[slots[common], names] != after.codes[common, names]
            moved.append(int(differ.any(axis=1).sum()))
        else:
            old, new = before.tree.nodes[level][slots[common]], after.tree.nodes[level][common]
            moved.append(int(common.sum()) - _staying(old, new))
    number = int(common.sum())
    return Changes(number, len(after) - number, len(before) - number, moved, same)


def _staying(old: NDArray[np.int64], new: NDArray[np.int64]) -> int:
    """Of items [n] in nodes of two trees those whose nodes are matched."""
    pairs, counts = np.unique(np.stack([old, new], axis=1), axis=0, return_counts=True)
    staying = 0
    taken_old: set[int] = set()
    taken_new: set[int] = set()
    for place in np.argsort(-counts, kind="stable"):
        one, other = pairs[place].tolist()
        if one not in taken_old and other not in taken_new:
            taken_old.add(one)
            taken_new.add(other)
            staying += int(counts[place])
    return staying


def _of_tree(index: object, folder: str) -> HierarchyIndex:
    if not isinstance(index, HierarchyIndex):
        raise ConfigError(
            f"{folder} is a FAISS index, which has no nodes to report on; give the index of a "
            "tree, which `recsys index build run_dir=…` makes."
        )
    return index
