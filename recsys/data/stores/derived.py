"""Arrays that are built from a data set's timelines when somebody first asks for them.

They lie in ``<folder>/<key>/`` of the prepared data set, one ``.npy`` file per array and a
description. The key is a hash of what was asked for and of the timelines' current content, so what
was built from other timelines is never found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.durable import PARTIAL, sync_file
from recsys.core.errors import DataError
from recsys.core.folders import replaced_folder
from recsys.core.json_files import read_json, write_json
from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.dataset import TIMELINES, PreparedDataset, fetch, locked_dataset
from recsys.data.stores.timelines.layout import CURRENT

#: Later than everything, and more than all: whole timelines.
END_OF_TIME = np.iinfo(np.int64).max
ALL_EVENTS = np.iinfo(np.int32).max
#: Events that are in memory at a time, unless one user has more.
_EVENTS_PER_CHUNK = 2_000_000


@dataclass(frozen=True)
class ArrayFile:
    """An array as it was written.

    Attributes:
        dtype: numpy's name of it.
        shape: of the array.
        mark: size and checksum of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    mark: FileMark


@dataclass(frozen=True)
class Description:
    """What lies in a folder of arrays.

    Attributes:
        version: of the arrays.
        timelines: hash of the timelines' content when they were read.
        facts: what else is known of the arrays, by name.
        arrays: the files by array.
    """

    version: int
    timelines: str
    facts: dict[str, Any]
    arrays: dict[str, ArrayFile]


@dataclass(frozen=True)
class DerivedArrays:
    """A kind of such arrays.

    Attributes:
        folder: of the data set, with a folder per key.
        file: name of the descriptions.
        version: of the arrays; other versions are never found.
    """

    folder: str
    file: str
    version: int

    def ensure(
        self,
        dataset: PreparedDataset,
        asked: list[Any],
        build: Callable[[PreparedDataset, Path], dict[str, Any]],
    ) -> Path:
        """The folder of the arrays, built if they are not there.

        Of processes that want the same, one builds and the others wait.

        Args:
            dataset: the prepared data set.
            asked: what the arrays depend on beside the timelines, of what JSON has.
            build: writes the arrays (:func:`save_array`) of a data set into a folder, and returns
                the facts.

        Raises:
            DataError: the data set was prepared anew since it was opened, or ``build`` raised.
        """
        folder, _ = self._wanted(dataset.path, asked)
        fetch(dataset.path, f"{self.folder}/{folder.name}/")
        if (folder / self.file).is_file():
            return folder
        with locked_dataset(dataset.path) as current:
            if current.manifest.fingerprint != dataset.manifest.fingerprint:
                raise DataError(
                    f"{dataset.path} was prepared anew or appended to since it was opened; start "
                    "again."
                )
            # the timelines of now: a user may have been deleted since the data set was opened
            folder, timelines = self._wanted(dataset.path, asked)
            if not (folder / self.file).is_file():
                folder.parent.mkdir(exist_ok=True)
                with replaced_folder(folder) as partial:
                    facts = build(current, partial)
                    self.describe(partial, facts, timelines)
            self._remove_outdated(folder.parent, timelines)
        return folder

    def describe(self, folder: Path, facts: dict[str, Any], timelines: str = "") -> None:
        """Write the description of the arrays in a folder."""
        arrays = {path.stem: _described(path) for path in sorted(folder.glob("*.npy"))}
        description = Description(self.version, timelines, facts, arrays)
        write_json(folder / self.file, self._kind, asdict(description))

    def read(self, folder: Path) -> Description:
        """Read the description of the arrays in a folder.

        Raises:
            DataError: it is missing or damaged.
        """
        mend = (
            "the data set may have changed since it was opened. Start again; if that does not "
            f"help, remove {folder}."
        )
        content = read_json(folder / self.file, self._kind, DataError, mend)
        if content.get("version") != self.version:
            raise DataError(f"{folder} was written by another release; remove it.")
        arrays = {
            name: ArrayFile(one["dtype"], tuple(one["shape"]), FileMark(**one["mark"]))
            for name, one in content["arrays"].items()
        }
        return Description(self.version, content["timelines"], content["facts"], arrays)

    def marks(self, dataset: Path) -> dict[Path, FileMark]:
        """All arrays of a data set as they were written.

        Raises:
            DataError: a description of them is damaged.
        """
        return {
            array_path(described.parent, name): one.mark
            for described in sorted((dataset / self.folder).glob(f"[!.]*/{self.file}"))
            if self._is_ours(described)
            for name, one in self.read(described.parent).arrays.items()
        }

    def forget(self, dataset: Path) -> None:
        """Remove all of a data set, for example because a user was deleted from it."""
        shutil.rmtree(dataset / self.folder, ignore_errors=True)

    @property
    def _kind(self) -> str:
        return f"description of {self.folder}"

    def _wanted(self, dataset: Path, asked: list[Any]) -> tuple[Path, str]:
        """The folder of the arrays of the timelines as they are now, and the mark of these."""
        # the file that names the timelines' blocks and their checksums
        timelines = hashlib.sha256((dataset / TIMELINES / CURRENT).read_bytes()).hexdigest()[:16]
        wanted = json.dumps([self.version, timelines, *asked])
        key = hashlib.sha256(wanted.encode()).hexdigest()[:16]
        return dataset / self.folder / key, timelines

    def _remove_outdated(self, folder: Path, timelines: str) -> None:
        """Remove what was built from other timelines, or half: nobody can ask for it any more."""
        for partial in folder.glob(f".*{PARTIAL}"):
            shutil.rmtree(partial, ignore_errors=True)
        for described in folder.glob(f"[!.]*/{self.file}"):
            if not self._is_ours(described) or self.read(described.parent).timelines != timelines:
                shutil.rmtree(described.parent, ignore_errors=True)

    def _is_ours(self, described: Path) -> bool:
        """Whether this release wrote it: what another one wrote is never asked for."""
        content = read_json(described, self._kind, DataError, f"remove {described.parent}.")
        return content.get("version") == self.version


#: Which cluster of like content each item is in: found from embeddings, which rooms above read.
CONTENT_CLUSTERS = DerivedArrays("content_clusters", "clusters.json", version=1)


def array_path(folder: Path, name: str) -> Path:
    """Where an array lies."""
    return folder / f"{name}.npy"


def save_array(folder: Path, name: str, array: NDArray) -> None:
    """Write an array."""
    with array_path(folder, name).open("wb") as file:
        np.save(file, array)
        sync_file(file)


def map_arrays(folder: Path, description: Description) -> dict[str, NDArray]:
    """The arrays of a folder, memory-mapped.

    Raises:
        DataError: one is missing or damaged.
    """
    return {
        name: _map_array(array_path(folder, name), one) for name, one in description.arrays.items()
    }


def user_chunks(dataset: PreparedDataset, *kinds: TimelineKind) -> Iterator[NDArray[np.int32]]:
    """Known users, ascending, in chunks of a bounded number of events of some kinds."""
    users = dataset.timelines.users()
    users = users[users > 0]
    before = np.full(len(users), END_OF_TIME)
    lengths = sum(
        (dataset.timelines.lengths(users, before, kind, ALL_EVENTS) for kind in kinds),
        np.zeros(len(users), np.int64),
    )
    chunk = (np.cumsum(lengths) - lengths) // _EVENTS_PER_CHUNK
    yield from np.split(users, np.flatnonzero(np.diff(chunk)) + 1)


def _described(path: Path) -> ArrayFile:
    array = np.load(path, mmap_mode="r")
    return ArrayFile(array.dtype.name, array.shape, FileMark.of(path))


def _map_array(path: Path, written: ArrayFile) -> NDArray:
    if problem := written.mark.size_problem(path):
        raise DataError(f"{path} {problem}; remove {path.parent} and it is built anew.")
    try:
        # numpy cannot map an empty array
        array = np.load(path, mmap_mode="r" if np.prod(written.shape) else None)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}); remove {path.parent} and it is built anew."
        ) from error
    if array.shape != written.shape or array.dtype.name != written.dtype:
        raise DataError(
            f"{path} holds {array.dtype} {array.shape}, {written.dtype} {written.shape} was "
            f"written; remove {path.parent} and it is built anew."
        )
    return np.asarray(array)
