"""A prepared data set: everything `recsys data prepare` wrote, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recsys.core.checksums import FileMark, is_partial
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import has_lock, locked_folder
from recsys.data.contract.manifest import FIT_VOCABULARY, PREPARE_AGAIN, DatasetManifest
from recsys.data.contract.schema import Column, FeatureKind, FeatureSide
from recsys.data.stores.item_text import ITEM_TEXT_FILE, read_item_text
from recsys.data.stores.requests import MANIFEST, RequestStore
from recsys.data.stores.side_table import read_side_table
from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.vocabulary import INDEX, RAW, VOCABULARIES, Vocabulary, vocabulary_path

TIMELINES = "timelines"
REQUESTS = "requests"
FEATURES = "features"
TAIL = "tail"
#: Given embeddings of items by raw id, beside the features.
ITEM_EMBEDDING_FILE = "item_embedding.parquet"


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features of users or of items, one row per index, memory-mapped.

    Attributes:
        categorical: [n, F] int32, columns in the order of the manifest's features.
        dense: [n, D] float32, standardised.
    """

    categorical: NDArray[np.int32]
    dense: NDArray[np.float32]


class Counters(Protocol):
    """How often items, authors and topics were shown and acted on (``CounterStore``)."""

    actions: tuple[str, ...]

    def counts(
        self, entity: str, index: ArrayLike, before: ArrayLike, windows: Sequence[int | None]
    ) -> NDArray[np.int64]:
        """Events in the whole hours before some moments, [W, R, A]."""
        ...


class PreparedDataset:
    """The folder that `recsys data prepare` writes; stores are opened when first asked for.

    Pickled to another process it is opened there again.

    Attributes:
        path: the folder.
        manifest: what it holds and how it was made.
        newest: the manifest of the folder; another one where the data set is seen as an earlier
            generation (``as_known``).
    """

    def __init__(
        self, path: Path, manifest: DatasetManifest, newest: DatasetManifest | None = None
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.newest = newest or manifest

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read the manifest and compare the sizes of the files that it names; of a URL in a copy.

        Of that, what few jobs read is copied when it is asked for (:func:`is_read_at_once`).

        ``check_dataset`` compares the content of all files, which takes as long as reading them.

        Raises:
            DataError: ``path`` is no prepared data set, or a file of it is missing or cut off.
        """
        folder = Path(path)
        if "://" in str(path):
            from recsys.core.mirror import local_folder  # which few need

            folder = local_folder(path, is_read_at_once)
        manifest = DatasetManifest.load(folder)
        while problem := _size_problem(folder, manifest):
            newest = DatasetManifest.load(folder)
            if newest == manifest:
                raise DataError(f"{problem}; {PREPARE_AGAIN}")
            manifest = newest  # somebody has changed the data set meanwhile
        return cls(folder, manifest)

    def of_tasks(self, names: Sequence[str]) -> Self:
        """The data set with the labels of some of its tasks, in its own order; ``[]`` is all.

        Raises:
            ConfigError: a name that is no task of it.
        """
        tasks = {task.name: task for task in self.manifest.tasks}
        if unknown := [name for name in names if name not in tasks]:
            raise ConfigError(
                f"{self.manifest.name} has no task {unknown[0]}; its request rows have labels of "
                f"{', '.join(tasks) or 'no task'}."
            )
        if not names:
            return self
        kept = tuple(task for name, task in tasks.items() if name in names)
        return self._described_by(replace(self.manifest, tasks=kept))

    def as_known(
        self, trained_on: DatasetManifest, periods: Mapping[str, tuple[int, int]] | None = None
    ) -> Self:
        """The data set as a model takes it that was trained on an earlier generation.

        Ids that were not in the fit period of then have no trained row, though they may lie in the
        fit period of now. Its tasks are those of then, of which a model may take some.

        Args:
            trained_on: manifest of that generation.
            periods: ``[first, last)`` request time of the splits; None for those of then.
        """
        trained = {
            name: count
            for name, count in trained_on.counts.items()
            if name.startswith(FIT_VOCABULARY)
        }
        manifest = replace(
            self.newest,
            counts={**self.newest.counts, **trained},
            split_bounds=dict(trained_on.split_bounds if periods is None else periods),
            tasks=trained_on.tasks,
        )
        return self._described_by(manifest)

    def with_fit_vocabulary(self, sizes: Mapping[str, int]) -> Self:
        """The data set as a model takes it that was trained with so many indices of each id."""
        fit = {FIT_VOCABULARY + name: size for name, size in sizes.items()}
        return self._described_by(replace(self.manifest, counts={**self.manifest.counts, **fit}))

    def with_live(self, stored: Counters) -> Counters:
        """The counters of what was prepared, and of what has come since where that is known."""
        return stored

    def _described_by(self, manifest: DatasetManifest) -> Self:
        """The data set as another manifest describes it."""
        return type(self)(self.path, manifest, self.newest)

    def __repr__(self) -> str:
        return f"PreparedDataset({str(self.path)!r}, name={self.manifest.name!r})"

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open the data set again in the process that unpickles it, as it is known here."""
        known = None if self.manifest is self.newest else self.manifest
        return _reopened, (type(self), self.path, known)

    @cached_property
    def timelines(self) -> TimelineStore:
        """The users' timelines."""
        return TimelineStore.open(self.path / TIMELINES)

    def vocabulary(self, name: str) -> Vocabulary:
        """The ids and indices of ``user``, ``item``, ``author`` or ``topic``.

        Raises:
            DataError: the file is missing or damaged.
        """
        path = vocabulary_path(self.path, name)
        return Vocabulary.load(path, self.manifest.files.get(str(path.relative_to(self.path))))

    def requests(self, split: str | None) -> RequestStore:
        """The requests of ``fit``, ``choose`` or ``report``; with None all that there are.

        Raises:
            DataError: the log has no request rows, or no such split, or not the tasks of the
                manifest.
        """
        if not self.manifest.tasks:
            why = "has no impressions with labels"
            if not self.manifest.has_times:
                why = "has an order of events only, no times"
            raise DataError(
                f"{self.path} has no request rows, for {self.manifest.name} {why}: "
                "models that rank what was shown, such as DV365, cannot be trained on it; train a "
                "sequence model (nxtpost, sequence), or prepare another log."
            )
        if split is not None and split not in self.manifest.split_bounds:
            raise DataError(f"{self.path} has no split {split}; {PREPARE_AGAIN}")
        fetch(self.path, f"{REQUESTS}/")
        period = None if split is None else self.manifest.split_bounds[split]
        tasks = tuple(task.name for task in self.manifest.tasks)
        return RequestStore.open(self.path / REQUESTS, period, tasks)

    @cached_property
    def user_features(self) -> FeatureArrays:
        """Features of users, by user index."""
        return self._features(FeatureSide.USER)

    @cached_property
    def item_features(self) -> FeatureArrays:
        """Features of items, by item index."""
        return self._features(FeatureSide.ITEM)

    @property
    def ids_of_items(self) -> dict[str, NDArray[np.int32]]:
        """By ``author`` and ``topic`` the index of each item's, [V]; 0 where it is unknown."""
        features = self.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        names = [feature.name for feature in features]
        columns = {"author": Column.AUTHOR, "topic": Column.TOPIC}
        categorical = self.item_features.categorical
        return {name: categorical[:, names.index(column)] for name, column in columns.items()}

    @cached_property
    def item_text(self) -> pl.DataFrame:
        """Texts of items: ``index`` and, where the source has them, ``title`` and others.

        One row per item with a known text; no rows where the source has none.
        """
        return read_item_text(self.path / FEATURES / ITEM_TEXT_FILE)

    def item_table(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """What is stated of items, as it was stated, by item index: for filters and for pages.

        Args:
            columns: some of ``item_columns``; all of them where None.

        Returns:
            ``index`` and the columns, a row per item index but 0 that has an item; null where
            unknown. Categories and texts are text, lists are lists of text, numbers are numbers.
            Of items that share a hashed index the first one's values.

        Raises:
            DataError: nothing of that name is stated, or a file is damaged.
        """
        known = self.item_columns
        wanted = known if columns is None else columns
        for name in wanted:
            if name not in known:
                raise DataError(
                    f"{self.path} has no column {name} of items; it has "
                    f"{', '.join(known) or 'none'}."
                )
        items = self.vocabulary("item").table.select(INDEX).unique(maintain_order=True)
        for table in (self.item_text, self._item_table, self._item_ids):
            names = [n for n in table.columns if n in wanted and n not in items.columns]
            first = table.select(INDEX, *names).unique(INDEX, keep="first")
            items = items.join(first, on=INDEX, how="left", maintain_order="left")
        return items.select(INDEX, *wanted)

    @property
    def item_columns(self) -> tuple[str, ...]:
        """What is known of items: texts, features, links, ``author_id`` and ``topic_id``."""
        tables = (self.item_text, self._item_table, self._item_ids)
        names = [name for table in tables for name in table.columns]
        return tuple(name for name in dict.fromkeys(names) if name != INDEX)

    @property
    def item_embedding_file(self) -> Path | None:
        """The file of the embeddings that were given with the items; None where there were none."""
        path = self.path / FEATURES / ITEM_EMBEDDING_FILE
        return path if path.is_file() else None

    @cached_property
    def _item_ids(self) -> pl.DataFrame:
        """``index`` and, where items have any, the raw ids of their authors and topics."""
        indices = self.item_features.categorical
        items = pl.DataFrame({INDEX: np.arange(len(indices), dtype=np.int32)})
        features = self.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        for column, feature in enumerate(features):
            if feature.name not in (Column.AUTHOR, Column.TOPIC) or feature.cardinality < 2:
                continue
            ids = self.vocabulary(feature.name.removesuffix("_id")).table
            first = ids.select(pl.col(INDEX).alias("of"), pl.col(RAW).alias(feature.name)).unique(
                "of", keep="first"
            )
            of_item = pl.DataFrame({"of": np.array(indices[:, column])})
            named = of_item.join(first, on="of", how="left", maintain_order="left")
            items = items.with_columns(named[feature.name])
        return items

    @cached_property
    def _item_table(self) -> pl.DataFrame:
        return read_side_table(self.path / FEATURES, FeatureSide.ITEM)

    def _features(self, side: FeatureSide) -> FeatureArrays:
        rows = self.manifest.vocabulary_sizes[side]
        arrays = {}
        for kind in FeatureKind:
            path = self.path / FEATURES / f"{side}_{kind}.npy"
            if not path.is_file():
                raise DataError(f"{path} is missing; {PREPARE_AGAIN}")
            shape = (rows, len(self.manifest.select(side, kind)))
            # numpy cannot map an empty array
            try:
                array = np.load(path, mmap_mode="r" if all(shape) else None)
            except (ValueError, EOFError) as error:
                raise DataError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error
            if array.shape != shape:
                raise DataError(
                    f"{path} has shape {array.shape}, the manifest asks for {shape}; "
                    f"{PREPARE_AGAIN}"
                )
            arrays[str(kind)] = np.asarray(array)
        return FeatureArrays(**arrays)


def is_read_at_once(name: str) -> bool:
    """Whether a file of a data set at a URL is copied when it is opened.

    The arrays of request rows, and those that were built from timelines, are copied when they are
    asked for; rejected rows and the tail of a log are read by no job but those that append.

    >>> [is_read_at_once(name) for name in ("dataset.json", "timelines/a", "requests/item.npy")]
    [True, True, False]
    """
    folder, inside, _ = name.partition("/")
    is_described = name == f"{REQUESTS}/{MANIFEST}"
    return not inside or folder in (TIMELINES, VOCABULARIES, FEATURES) or is_described


def fetch(folder: Path, prefix: str) -> None:
    """Have the files of a data set whose names begin so, where it is a copy that lacks them.

    Raises:
        DataError: one is not what was uploaded, or the store says no.
    """
    if is_partial(folder):
        from recsys.core.mirror import fetch_more  # which few need

        fetch_more(folder, lambda name: name.startswith(prefix))


def _size_problem(folder: Path, manifest: DatasetManifest) -> str | None:
    """Which file of a data set has not the size it was written with, in words."""
    partial = is_partial(folder)
    for name, mark in manifest.files.items():
        if partial and not (folder / name).exists():
            continue  # it lies at its URL
        if problem := mark.size_problem(folder / name):
            return f"{folder / name} {problem}"
    return None


def _reopened(
    kind: type[PreparedDataset], path: Path, known: DatasetManifest | None
) -> PreparedDataset:
    dataset = kind.open(path)
    return dataset if known is None else dataset.as_known(known)


@contextmanager
def locked_dataset(path: Path | str) -> Iterator[PreparedDataset]:
    """A data set that nobody else prepares, appends to or changes until the block ends.

    Whatever writes into a prepared data set does it in here; who comes second waits.

    Raises:
        DataError: ``path`` is no prepared data set.
    """
    folder = Path(path)
    if not has_lock(folder):
        DatasetManifest.load(folder)  # no lock is left beside what is no data set
    with locked_folder(folder):
        yield PreparedDataset.open(folder)


def mark_files(folder: Path) -> dict[str, FileMark]:
    """Size and checksum of the files below a data set's folder, by path there.

    They are those of vocabularies and features, the tail, and the description of requests, whose
    arrays it has the checksums of.
    """
    patterns = (f"{VOCABULARIES}/*", f"{FEATURES}/*", f"{REQUESTS}/{MANIFEST}", f"{TAIL}/*")
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): FileMark.of(path) for path in paths}
