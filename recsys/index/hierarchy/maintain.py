"""Building the index of a tree, and adding new items to it, in its folder."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from recsys.artifacts.hsnn_tower import HsnnManifest, load_hsnn
from recsys.artifacts.manifest import ARTIFACT as EXPORTED
from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.core.folders import check_replaced, locked_folder, read_whole, replaced_folder
from recsys.data.contract.moments import log_end, parse_moment
from recsys.data.stores.vocabulary import UNKNOWN_INDEX
from recsys.index.catalogue import Added
from recsys.index.config import IndexAddConfig, IndexBuildConfig, IndexChange
from recsys.index.folder import ARTIFACT, INDEX_FOLDER, save_index, write_index, write_rejected
from recsys.index.hierarchy.exported import TreeItems, load_networks
from recsys.index.hierarchy.item_index import HierarchyIndex, PlacedItems
from recsys.index.hierarchy.new_items import read_given_features
from recsys.index.hierarchy.tree import tree_health
from recsys.index.item_table import describe_items, read_item_file
from recsys.index.usable_items import POST_ID, left_out, out_of_time


def build_tree(config: IndexBuildConfig, folder: Path) -> IndexChange:
    """Put the items of a data set into the nodes that an exported model has for them.

    What is at ``folder`` is replaced in one step, networks and items together.

    Args:
        config: names the artifact, and which items.
        folder: of the index.

    Raises:
        ArtifactError: the artifact is none of a model with a tree, or not of the data set.
        ConfigError: ``folder`` holds something else.
        DataError: no item is left.
    """
    place = Path(config.artifact or Path(str(config.run_dir)) / EXPORTED)
    networks = read_whole(place, lambda: load_hsnn(place, config.trust))
    items = TreeItems.of(networks, config.dataset)
    as_of = None if config.as_of is None else parse_moment("as_of", config.as_of)
    table = describe_items(items.in_log(), items.dataset, as_of, config.posts)
    reasons = out_of_time(table, as_of, config.max_age_hours)
    placed = items.placed(table.filter(reasons.is_null()))
    if not len(placed.table):
        raise DataError(
            f"{items.dataset.path} has no item for the tree: all {len(table):,} are too old, "
            "or first seen at as_of or later; give another as_of or max_age_hours."
        )
    until = log_end(items.dataset.manifest) if as_of is None else as_of
    codes = [one["codes"] for one in networks.manifest.levels]
    index = HierarchyIndex.build(
        placed, networks.manifest.networks, codes, str(items.dataset.path), until
    )
    rejected = left_out(table, reasons)
    check_replaced(folder, INDEX_FOLDER, config.inputs)
    with locked_folder(folder), replaced_folder(folder) as partial:
        shutil.copytree(place, partial / ARTIFACT)
        if HsnnManifest.open(partial / ARTIFACT, trust=True) != networks.manifest:
            raise ArtifactError(f"{place} was replaced while it was read; build the index again.")
        write_index(index, partial)
        write_rejected(partial, rejected)
    added = Added(len(index), 0, rejected)
    return IndexChange(index, added, None, remarks(index, placed))


def add_to_tree(config: IndexAddConfig, folder: Path, index: HierarchyIndex) -> IndexChange:
    """Put new items into their nodes, and note anew when the log saw those that are there.

    Args:
        config: names the items.
        folder: of the index, locked.
        index: that it holds; saved.

    Raises:
        ArtifactError: networks and index are not of one generation, or the data set is another.
        ConfigError: embeddings are given.
        DataError: an item is named twice, or ids are of another type.
    """
    if config.embeddings is not None or config.same_model:
        raise ConfigError(
            f"{folder} is a tree, which has its items from their features by the networks inside "
            "it; leave embeddings= and same_model= out."
        )
    items = TreeItems.of(
        load_networks(folder, index, config.trust), config.dataset or index.manifest.dataset
    )
    until, given = index.manifest.seen_until, None
    if config.posts is None:
        ids, until = items.in_log(since=until), log_end(items.dataset.manifest)
    else:
        ids = read_item_file(config.posts, items.dataset)[POST_ID]
        given = read_given_features(config.posts, items.dataset)
    placed = items.placed(describe_items(ids, items.dataset, None, config.posts), given)
    added = index.add(placed, until)
    index.describe(describe_items(index.items[POST_ID], items.dataset, None, None))
    save_index(index, folder)
    write_rejected(folder, added.rejected)
    in_log = items.dataset.vocabulary("item").indices(ids) != UNKNOWN_INDEX
    return IndexChange(index, added, int((~in_log).sum()), remarks(index, placed))


def remarks(index: HierarchyIndex, placed: PlacedItems) -> tuple[str, ...]:
    """What is to be said of the nodes of an index, and of items that have just come into it."""
    said = []
    possible = math.prod(index.manifest.levels)
    if len(index) < possible:
        said.append(
            f"There are {len(index):,} items for the {possible:,} nodes that the last level could "
            "have; nodes without an item are not looked at."
        )
    for number, health in enumerate(tree_health(index.tree, index.manifest.levels), 1):
        if health.has_collapsed:
            said.append(
                f"Level {number} has collapsed: {health.largest_share:.0%} of the items are in one "
                f"of its {health.possible:,} nodes; look at `recsys index report`."
            )
    if placed.without_features:
        said.append(
            f"Items of which the model knows no feature: {placed.without_features:,}; all of them "
            "are in one node, whatever they are."
        )
    return tuple(said)
