"""The store of request rows: grouped by recommendation moment, in order of time, memory-mapped.

A split is a stretch of it, so splits may move without a row being written again.
``recsys/data/prepare/request_writer.py`` writes it.

Legend: Q requests, R rows, K tasks, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.core.checksums import FileMark
from recsys.core.errors import DataError
from recsys.core.json_files import read_json
from recsys.core.paths import plain_name
from recsys.data.contract.manifest import PREPARE_AGAIN

FORMAT_VERSION = 3
MANIFEST = "requests.json"
KIND = "description of requests"

#: Sources that know the truth give it as ``<name>_<task>``: the probability given everything, and
#: the probability given only what happened before the gap.
TRUTHS = ("best_absolute", "best_within_reach")


@dataclass(frozen=True, eq=False)
class RequestStore:
    """Memory-mapped arrays of the rows of a period, requests sorted by request time, then user.

    Attributes:
        path: folder of the store.
        tasks: names of the tasks, in the order of the label columns.
        user: [Q] int32.
        request_time: [Q] int64, ms.
        offsets: [Q + 1] int64, first row of each request.
        item: [R] int32; a row's position is its ``row_id``.
        labels: [R, K] float32, NaN where not observed.
        context_categorical: [R, F] int32.
        context_dense: [R, F] float32.
        best_absolute: [R, K] float32 true probability of each label, where the source knows it.
        best_within_reach: [R, K] float32, the same given only what happened before the gap.
        shown_at: [R] int64, ms, where an item may have been shown later than it was requested.
        propensity: [R] float32, how likely an item was to come to its place in the list, where the
            source says so; NaN where nothing was drawn.
        period: ``[first, last)`` request time in ms; None for all that the store has.
    """

    path: Path
    tasks: tuple[str, ...]
    user: NDArray[np.int32]
    request_time: NDArray[np.int64]
    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    labels: NDArray[np.float32]
    context_categorical: NDArray[np.int32]
    context_dense: NDArray[np.float32]
    best_absolute: NDArray[np.float32] | None = None
    best_within_reach: NDArray[np.float32] | None = None
    shown_at: NDArray[np.int64] | None = None
    propensity: NDArray[np.float32] | None = None
    period: tuple[int, int] | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        period: tuple[int, int] | None = None,
        tasks: tuple[str, ...] | None = None,
    ) -> Self:
        """Map the arrays written by ``write_requests``.

        Args:
            path: folder of the store.
            period: ``[first, last)`` request time in ms; None for all rows. A row's ``row_id`` is
                its position among them.
            tasks: whose labels; None for all. Those of some are copied into memory.

        Raises:
            DataError: there is no request store at ``path``, it has no labels of a task, or a file
                is missing or damaged.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder} holds no requests (no {MANIFEST} in it); {PREPARE_AGAIN}")
        arrays = {
            name: _map_array(folder / entry["file"], entry)
            for name, entry in manifest["arrays"].items()
        }
        if period is not None:
            arrays = _within(arrays, period)
        stored = tuple(manifest["tasks"])
        if tasks is not None and tasks != stored:
            if not set(tasks) <= set(stored):
                raise DataError(
                    f"{folder} holds labels of {', '.join(stored)}, the manifest names "
                    f"{', '.join(tasks)}; {PREPARE_AGAIN}"
                )
            columns = [stored.index(task) for task in tasks]
            of_tasks = [name for name in ("labels", *TRUTHS) if name in arrays]
            arrays |= {name: arrays[name][:, columns] for name in of_tasks}
        return cls(path=folder, tasks=tasks or stored, period=period, **arrays)

    def __reduce__(self) -> tuple[object, tuple[Path, tuple[int, int] | None, tuple[str, ...]]]:
        """Open the store again in the process that unpickles it."""
        return type(self).open, (self.path, self.period, self.tasks)

    def __len__(self) -> int:
        """Q, the number of requests."""
        return len(self.user)

    @property
    def num_rows(self) -> int:
        """R, the number of rows over all requests."""
        return len(self.item)

    def row_ids(self, requests: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of some requests.

        Args:
            requests: [B] positions of requests.

        Returns:
            ``row_id`` [R], rows of a request side by side, and ``rows_per_request`` [B].
        """
        start = self.offsets[requests]
        rows_per_request = self.offsets[requests + 1] - start
        shift = start - (np.cumsum(rows_per_request) - rows_per_request)
        total = int(rows_per_request.sum())
        return np.repeat(shift, rows_per_request) + np.arange(total), rows_per_request


def read_manifest(folder: Path) -> dict | None:
    """The content of the store's manifest, or None where there is no store.

    Raises:
        DataError: it is damaged, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path, KIND, DataError, PREPARE_AGAIN)
    version = content["format_version"]
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}, this release reads version {FORMAT_VERSION}; "
            f"{PREPARE_AGAIN}"
        )
    try:
        for entry in content["arrays"].values():
            plain_name(entry["file"])
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; {PREPARE_AGAIN}") from error
    return content


def request_marks(folder: Path) -> dict[Path, FileMark]:
    """The arrays of a store as they were written; none where there is no store.

    Raises:
        DataError: the store's manifest is damaged, or of another version.
    """
    manifest = read_manifest(folder) or {"arrays": {}}
    return {folder / entry["file"]: _mark(entry) for entry in manifest["arrays"].values()}


def _mark(entry: dict) -> FileMark:
    size = math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize
    return FileMark(size, entry["crc32"])


def _within(arrays: dict[str, NDArray], period: tuple[int, int]) -> dict[str, NDArray]:
    """The part of every array that a period has; of the rows nothing is copied."""
    first, last = np.searchsorted(arrays["request_time"], period).tolist()
    offsets = arrays["offsets"][first : last + 1]
    start, stop = int(offsets[0]), int(offsets[-1])
    ends = {"user": (first, last), "request_time": (first, last)}
    cut = {
        name: array[slice(*ends.get(name, (start, stop)))]
        for name, array in arrays.items()
        if name != "offsets"
    }
    return {**cut, "offsets": offsets - start if start else offsets}


def _map_array(path: Path, entry: dict) -> NDArray:
    mark, dtype, shape = _mark(entry), np.dtype(entry["dtype"]), entry["shape"]
    if problem := mark.size_problem(path):  # before it is mapped: a page that is not there kills
        raise DataError(f"{path} {problem}; {PREPARE_AGAIN}")
    if not mark.bytes:  # an empty file cannot be mapped
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", shape=tuple(shape)))
