"""A prepared data set: everything `recsys data prepare` wrote, opened for reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.folders import has_lock, locked_folder
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.stores.item_text import ITEM_TEXT_FILE, read_item_text
from recsys.data.stores.requests import RequestStore
from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path

TIMELINES = "timelines"
REQUESTS = "requests"
FEATURES = "features"


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features of users or of items, one row per index, memory-mapped.

    Attributes:
        categorical: [n, F] int32, columns in the order of the manifest's features.
        dense: [n, D] float32, standardised.
    """

    categorical: NDArray[np.int32]
    dense: NDArray[np.float32]


class PreparedDataset:
    """The folder that `recsys data prepare` writes; stores are opened when first asked for.

    Pickled to another process it is opened there again.

    Attributes:
        path: the folder.
        manifest: what it holds and how it was made.
    """

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read the manifest.

        Raises:
            DataError: ``path`` is no prepared data set.
        """
        folder = Path(path)
        return cls(folder, DatasetManifest.load(folder))

    def __repr__(self) -> str:
        return f"PreparedDataset({str(self.path)!r}, name={self.manifest.name!r})"

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Open the data set again in the process that unpickles it."""
        return type(self).open, (self.path,)

    @cached_property
    def timelines(self) -> TimelineStore:
        """The users' timelines."""
        return TimelineStore.open(self.path / TIMELINES)

    def vocabulary(self, name: str) -> Vocabulary:
        """The ids and indices of ``user``, ``item``, ``author`` or ``topic``.

        Raises:
            DataError: the file is missing or damaged.
        """
        return Vocabulary.load(vocabulary_path(self.path, name))

    def requests(self, split: str) -> RequestStore:
        """The requests of ``fit``, ``choose`` or ``report``.

        Raises:
            DataError: the log has no request rows, the split was not written, or its tasks are not
                those of the manifest.
        """
        if not self.manifest.tasks:
            raise DataError(
                f"{self.path} has no request rows, for {self.manifest.name} has no impressions "
                "with labels: models that rank what was shown, such as DV365, cannot be trained "
                "on it; train a sequence model (nxtpost, sequence), or prepare another log."
            )
        store = RequestStore.open(self.path / REQUESTS / split)
        expected = tuple(task.name for task in self.manifest.tasks)
        if store.tasks != expected:
            raise DataError(
                f"{store.path} holds labels of {', '.join(store.tasks)}, the manifest names "
                f"{', '.join(expected)}; prepare the data set again with `recsys data prepare`."
            )
        return store

    @cached_property
    def user_features(self) -> FeatureArrays:
        """Features of users, by user index."""
        return self._features(FeatureSide.USER)

    @cached_property
    def item_features(self) -> FeatureArrays:
        """Features of items, by item index."""
        return self._features(FeatureSide.ITEM)

    @cached_property
    def item_text(self) -> pl.DataFrame:
        """Texts of items: ``index`` and, where the source has them, ``title`` and others.

        One row per item with a known text; no rows where the source has none.
        """
        return read_item_text(self.path / FEATURES / ITEM_TEXT_FILE)

    def _features(self, side: FeatureSide) -> FeatureArrays:
        rows = self.manifest.vocabulary_sizes[side]
        arrays = {}
        for kind in FeatureKind:
            path = self.path / FEATURES / f"{side}_{kind}.npy"
            if not path.is_file():
                raise DataError(
                    f"{path} is missing; prepare the data set again with `recsys data prepare`."
                )
            shape = (rows, len(self.manifest.select(side, kind)))
            # numpy cannot map an empty array
            try:
                array = np.load(path, mmap_mode="r" if all(shape) else None)
            except (ValueError, EOFError) as error:
                raise DataError(
                    f"{path} is damaged ({error}); prepare the data set again with "
                    "`recsys data prepare`."
                ) from error
            if array.shape != shape:
                raise DataError(
                    f"{path} has shape {array.shape}, the manifest asks for {shape}; "
                    "prepare the data set again with `recsys data prepare`."
                )
            arrays[str(kind)] = np.asarray(array)
        return FeatureArrays(**arrays)


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
