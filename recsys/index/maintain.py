"""Building an index of items, adding new ones, and removing expired ones, in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from recsys.artifacts.sequence_tower import embeddings_model
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_folder, has_lock, locked_folder
from recsys.data.content.item_embeddings import embeddings_file, read_embeddings
from recsys.data.contract.moments import parse_moment
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX
from recsys.index.catalogue import Added, StoredIndex
from recsys.index.config import IndexAddConfig, IndexBuildConfig, IndexChange, IndexRemoveConfig
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.folder import (
    INDEX_FOLDER,
    load_index,
    save_index,
    served_folder,
    write_rejected,
)
from recsys.index.hierarchy.item_index import HierarchyIndex
from recsys.index.hierarchy.maintain import add_to_tree, build_tree
from recsys.index.item_table import describe_items, read_item_file
from recsys.index.manifest import read_index_manifest
from recsys.index.usable_items import POST_ID, left_out, out_of_time


def build_index(config: IndexBuildConfig) -> IndexChange:
    """Build an index and write its folder.

    Raises:
        DataError: no item can be used, or a file cannot be read.
        ConfigError: ``out`` holds something else, or the kind cannot hold so few items or their
            width.
    """
    folder = Path(config.out)
    check_folder(folder, INDEX_FOLDER, config.inputs)
    if config.embeddings is None:
        return build_tree(config, folder)
    dataset = None if config.dataset is None else open_checked(config.dataset)
    as_of = None if config.as_of is None else parse_moment("as_of", config.as_of)
    ids, embedding = read_embeddings(embeddings_file(config.embeddings))
    foreign = None if dataset is None else _foreign(ids, dataset, config.embeddings)
    table = describe_items(ids, dataset, as_of, config.posts)
    reasons = out_of_time(table, as_of, config.max_age_hours)
    kept = reasons.is_null()
    index, added = ItemIndex.build(
        table.filter(kept),
        embedding[kept.to_numpy()],
        embeddings_model(config.embeddings),
        config.index,
        config.device,
    )
    rejected = pl.concat([left_out(table, reasons), added.rejected])
    added = Added(added.added, added.replaced, rejected)
    with locked_folder(folder):
        save_index(index, folder)
        write_rejected(folder, added.rejected)
    return IndexChange(index, added, foreign)


def add_items(config: IndexAddConfig) -> IndexChange:
    """Add items to an index, replacing those that are there, and save it.

    Raises:
        ArtifactError: there is no index, or its model is another one.
        ConfigError: a FAISS index is given no embeddings, or a tree is given some.
        DataError: the embeddings have another width, or ids are of another type.
    """
    folder = Path(config.index)
    with locked_index(folder) as index:
        if isinstance(index, HierarchyIndex):
            return add_to_tree(config, folder, index)
        assert isinstance(index, ItemIndex)
        if config.embeddings is None:
            raise ConfigError(f"{folder} is a FAISS index; give embeddings=… of the new items.")
        dataset = None if config.dataset is None else open_checked(config.dataset)
        if not config.same_model:
            index.check_model(
                embeddings_model(config.embeddings),
                config.embeddings,
                "; if the same model made both files, say so with same_model=true",
            )
        ids, embedding = read_embeddings(embeddings_file(config.embeddings))
        foreign = None if dataset is None else _not_in_log(ids, dataset)
        added = index.add(describe_items(ids, dataset, None, config.posts), embedding)
        save_index(index, folder)
        write_rejected(folder, added.rejected)
    return IndexChange(index, added, foreign)


def remove_items(config: IndexRemoveConfig) -> IndexChange:
    """Take items out of an index and save it.

    Raises:
        ArtifactError: there is no index.
        DataError: the file of items cannot be read, or its ids are of another type.
    """
    dataset = None if config.dataset is None else open_checked(config.dataset)
    folder = Path(config.index)
    with locked_index(folder) as index:
        if config.posts is not None:
            ids = read_item_file(config.posts, dataset)[POST_ID]
        else:
            assert config.last_seen_before is not None
            moment = parse_moment("last_seen_before", config.last_seen_before)
            ids = index.last_seen_before(moment)
        removed = index.remove(ids)
        save_index(index, folder)
    return IndexChange(index, removed)


@contextmanager
def locked_index(folder: Path) -> Iterator[StoredIndex]:
    """An index that nobody else changes until the block ends.

    Raises:
        ArtifactError: there is none, or it is damaged.
        ConfigError: the folder holds snapshots.
    """
    if served_folder(folder) != folder:
        raise ConfigError(
            f"{folder} holds snapshots, which do not change; give the index that they are made of, "
            "and make another one with `recsys index snapshot`."
        )
    if not has_lock(folder):
        read_index_manifest(folder)  # no lock is left beside what is no index
    with locked_folder(folder):
        yield load_index(folder)


def _foreign(ids: pl.Series, dataset: PreparedDataset, file: str) -> int:
    """How many items are not in the log of a data set, which may have them one day.

    Raises:
        DataError: none of them is.
    """
    foreign = _not_in_log(ids, dataset)
    if foreign == len(ids):
        example = dataset.vocabulary("item").table[RAW].head(1).to_list()
        raise DataError(
            f"None of the {len(ids):,} items of {file} (such as {ids[0]!r}) is in the log of "
            f"{dataset.path} (such as {example}): they are of "
            "another log, or their ids are written otherwise; give embeddings of this log's items, "
            "or leave dataset= out."
        )
    return foreign


def _not_in_log(ids: pl.Series, dataset: PreparedDataset) -> int:
    return int((dataset.vocabulary("item").indices(ids) == UNKNOWN_INDEX).sum())
