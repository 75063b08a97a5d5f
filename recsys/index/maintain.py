"""Building an index of items, adding new ones, and removing expired ones, in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import polars as pl
from omegaconf import MISSING

from recsys.artifacts.sequence_tower import embeddings_model
from recsys.core.bounds import HoursAboveZero, OneOf, OutPath, Settings
from recsys.core.durable import replaced_file
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_folder, has_lock, locked_folder
from recsys.data.content.item_embeddings import embeddings_file, read_embeddings
from recsys.data.contract.moments import parse_moment
from recsys.data.contract.parquet import write_frame
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import RAW, UNKNOWN_INDEX
from recsys.index.faiss.folder import INDEX_FOLDER, REJECTED_FILE, load_index, save_index
from recsys.index.faiss.gpus import AUTO, DEVICES
from recsys.index.faiss.item_index import Added, ItemIndex, Removed
from recsys.index.faiss.kinds import IndexConfig
from recsys.index.faiss.manifest import IndexManifest
from recsys.index.item_table import describe_items, read_item_file
from recsys.index.usable_items import FIRST_SEEN, POST_ID, REASON, last_known

FUTURE = "first seen at as_of or later"
TOO_OLD = "last seen longer than max_age_hours before as_of"


@dataclass(frozen=True)
class IndexBuildConfig(Settings):
    """What index to build of which items.

    Attributes:
        embeddings: item embeddings: .npz, Parquet, or the folder a post tower wrote.
        out: the index's folder; an index that is there is replaced in one step.
        dataset: a prepared data set, whose log says when items were first and last seen, and
            whose item texts give titles.
        posts: Parquet or CSV with ``item_id`` and any of ``title``, ``first_seen`` and
            ``last_seen`` (ms), which goes before what the data set says.
        as_of: ISO 8601 (UTC) or ms: items first seen later are left out, and later events not
            looked at; None takes everything.
        max_age_hours: leave out items last seen longer than this before ``as_of``.
        device: where IVF-PQ finds the centroids of its lists and sorts items into them; ``auto``
            takes GPUs where FAISS has them.
        index: kind and sizes.
    """

    embeddings: str = MISSING
    out: OutPath = MISSING
    dataset: str | None = None
    posts: str | None = None
    as_of: str | None = None
    max_age_hours: HoursAboveZero | None = None
    device: Annotated[str, OneOf(DEVICES)] = AUTO
    index: IndexConfig = field(default_factory=IndexConfig)

    def __post_init__(self) -> None:
        """Refuse ages of items that nobody dates."""
        super().__post_init__()
        if self.as_of is not None and self.dataset is None and self.posts is None:
            raise ConfigError("as_of= needs dataset= or posts=, which say when items were seen.")
        if self.max_age_hours is not None and self.as_of is None:
            raise ConfigError("max_age_hours= is counted back from as_of=; give both.")


@dataclass(frozen=True)
class IndexAddConfig(Settings):
    """Which items to add to an index.

    Attributes:
        index: the index's folder.
        embeddings: of the new items, as for building.
        dataset: as for building.
        posts: as for building.
        same_model: the embeddings were made by the model of the index though their file is
            another one; without it another identity is refused.
    """

    index: str = MISSING
    embeddings: str = MISSING
    dataset: str | None = None
    posts: str | None = None
    same_model: bool = False


@dataclass(frozen=True)
class IndexRemoveConfig(Settings):
    """Which items to take out of an index; give one of the two.

    Attributes:
        index: the index's folder.
        posts: Parquet or CSV with ``item_id`` of the items.
        dataset: a prepared data set, whose log may call the column of items otherwise.
        last_seen_before: ISO 8601 (UTC) or ms: all items last seen before it.
    """

    index: str = MISSING
    posts: str | None = None
    dataset: str | None = None
    last_seen_before: str | None = None

    def __post_init__(self) -> None:
        """Refuse none and both."""
        super().__post_init__()
        if (self.posts is None) == (self.last_seen_before is None):
            raise ConfigError(
                "Give either posts=…, a file of the items to remove, or last_seen_before=…."
            )


@dataclass(frozen=True, eq=False)
class IndexChange:
    """What became of an index.

    Attributes:
        index: as it is now, saved.
        change: what was added or removed.
        not_in_log: of the items given those that the data set's log does not have; None without
            one.
    """

    index: ItemIndex
    change: Added | Removed
    not_in_log: int | None = None


def build_index(config: IndexBuildConfig) -> IndexChange:
    """Build an index and write its folder.

    Raises:
        DataError: no item can be used, or a file cannot be read.
        ConfigError: ``out`` holds something else, or the kind cannot hold so few items or their
            width.
    """
    folder = Path(config.out)
    read = (config.embeddings, config.dataset, config.posts)
    check_folder(folder, INDEX_FOLDER, [one for one in read if one is not None])
    dataset = None if config.dataset is None else open_checked(config.dataset)
    as_of = None if config.as_of is None else parse_moment("as_of", config.as_of)
    ids, embedding = read_embeddings(embeddings_file(config.embeddings))
    foreign = None if dataset is None else _foreign(ids, dataset, config.embeddings)
    table = describe_items(ids, dataset, as_of, config.posts)
    reasons = _out_of_time(table, as_of, config.max_age_hours)
    kept = reasons.is_null()
    index, added = ItemIndex.build(
        table.filter(kept),
        embedding[kept.to_numpy()],
        embeddings_model(config.embeddings),
        config.index,
        config.device,
    )
    left_out = table.select(POST_ID).with_columns(reasons).filter(~kept)
    added = Added(added.added, added.replaced, pl.concat([left_out, added.rejected]))
    with locked_folder(folder):
        _save(index, folder, added.rejected)
    return IndexChange(index, added, foreign)


def add_items(config: IndexAddConfig) -> IndexChange:
    """Add items to an index, replacing those that are there, and save it.

    Raises:
        ArtifactError: there is no index, or its model is another one.
        DataError: the embeddings have another width, or ids are of another type.
    """
    dataset = None if config.dataset is None else open_checked(config.dataset)
    folder = Path(config.index)
    with _locked_index(folder) as index:
        if not config.same_model:
            index.check_model(
                embeddings_model(config.embeddings),
                config.embeddings,
                "; if the same model made both files, say so with same_model=true",
            )
        ids, embedding = read_embeddings(embeddings_file(config.embeddings))
        foreign = None if dataset is None else _not_in_log(ids, dataset)
        added = index.add(describe_items(ids, dataset, None, config.posts), embedding)
        _save(index, folder, added.rejected)
    return IndexChange(index, added, foreign)


def remove_items(config: IndexRemoveConfig) -> IndexChange:
    """Take items out of an index and save it.

    Raises:
        ArtifactError: there is no index.
        DataError: the file of items cannot be read, or its ids are of another type.
    """
    dataset = None if config.dataset is None else open_checked(config.dataset)
    folder = Path(config.index)
    with _locked_index(folder) as index:
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
def _locked_index(folder: Path) -> Iterator[ItemIndex]:
    """An index that nobody else changes until the block ends."""
    if not has_lock(folder):
        IndexManifest.load(folder)  # no lock is left beside what is no index
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


def _out_of_time(table: pl.DataFrame, as_of: int | None, max_age_hours: float | None) -> pl.Series:
    """Why an item is left out for its times; null for those that are kept."""
    reason = pl.lit(None, pl.String())
    if max_age_hours is not None and as_of is not None:
        oldest = as_of - round(max_age_hours * MILLISECONDS_PER_HOUR)
        reason = pl.when(last_known() < oldest).then(pl.lit(TOO_OLD)).otherwise(reason)
    if as_of is not None:
        reason = pl.when(pl.col(FIRST_SEEN) >= as_of).then(pl.lit(FUTURE)).otherwise(reason)
    return table.with_columns(reason.alias(REASON))[REASON]


def _save(index: ItemIndex, folder: Path, rejected: pl.DataFrame) -> None:
    save_index(index, folder)
    if len(rejected):
        with replaced_file(folder / REJECTED_FILE) as partial:
            write_frame(partial, rejected)
    else:
        (folder / REJECTED_FILE).unlink(missing_ok=True)
