"""Writing request rows, sorted by recommendation moment, and adding to them, in bounded memory.

Legend: K tasks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import sync_file, sync_folder
from recsys.core.engines import THIS_PROCESS, Engine
from recsys.core.json_files import write_json
from recsys.data.contract.schema import SHOWN_AT, Task
from recsys.data.prepare.request_spill import (
    CHUNK_ROWS,
    NEVER,
    OPTIONAL,
    RequestColumns,
    SpilledRequests,
    sorted_chunks,
    spill_records,
    spill_requests,
)
from recsys.data.stores.requests import (
    FORMAT_VERSION,
    KIND,
    MANIFEST,
    RequestStore,
    read_manifest,
)

#: How much memory the sort of rows may take; more rows are sorted in buckets of time.
DEFAULT_SORT_BYTES = 512 << 20

_ARRAY_SUFFIX = ".bin"


@dataclass(frozen=True)
class RequestCounts:
    """How much was written: requests, and rows over all requests."""

    requests: int
    rows: int


@dataclass(frozen=True)
class Extended:
    """A store that rows were added to.

    Attributes:
        requests: in the store now.
        rows: in the store now.
        replaced: rows that have left it, to be added again.
        labels: sum of each task's labels over these.
    """

    requests: int
    rows: int
    replaced: int
    labels: dict[str, float]


def write_requests(
    path: Path | str,
    frames: Iterable[pl.DataFrame],
    tasks: Sequence[Task],
    context_categorical: Sequence[str] = (),
    context_dense: Sequence[str] = (),
    sort_bytes: int = DEFAULT_SORT_BYTES,
) -> RequestCounts:
    """Group rows by (user, request time) and write their store, atomically.

    Rows are spilled to the disk, divided into buckets of time that fit into ``sort_bytes``, sorted
    bucket by bucket, and written. A store at ``path`` stays as it is until the new one is whole.

    Args:
        path: folder of the store.
        frames: ``user``, ``item`` (indices), ``request_time`` (ms), the label columns of
            ``tasks`` and the context columns; labels may be null. Where the source knows the
            truth, ``best_absolute_<task>`` and ``best_within_reach_<task>`` too; where an item may
            have been shown later than it was requested, ``shown_at`` (ms); where some were drawn
            for their places, ``propensity``. Rows in any order; rows of a request stay in the
            order they come in.
        tasks: the tasks in the order of the label columns.
        context_categorical: names of the categorical context features (indices), in order.
        context_dense: names of the dense context features, in order.
        sort_bytes: memory that the sort may take.

    Raises:
        DataError: a column is missing, has nulls where none may be, or does not fit its type.
    """
    folder = Path(path)
    columns = RequestColumns(
        tuple(task.name for task in tasks), tuple(context_categorical), tuple(context_dense)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix="spill-") as spill:
        pieces, present = _spilled(frames, columns, Path(spill))
        return write_spilled(folder, columns, present, pieces, sort_bytes)


def write_spilled(
    folder: Path,
    columns: RequestColumns,
    present: Sequence[str],
    pieces: Sequence[SpilledRequests],
    sort_bytes: int = DEFAULT_SORT_BYTES,
    engine: Engine = THIS_PROCESS,
) -> RequestCounts:
    """:func:`write_requests` of rows that are set down already.

    Args:
        folder: of the store.
        columns: of the rows.
        present: optional arrays that there are.
        pieces: in the order of the rows; they are removed.
        sort_bytes: memory that the sort of a bucket of time may take.
        engine: sorts one bucket after the other, or several at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = columns.record(present)
    return _write(folder, columns, present, sorted_chunks(pieces, record, sort_bytes, engine))


def extend_spilled(
    folder: Path,
    present: Sequence[str],
    pieces: Sequence[SpilledRequests],
    replaced_after: int | None = None,
    sort_bytes: int = DEFAULT_SORT_BYTES,
    engine: Engine = THIS_PROCESS,
) -> Extended:
    """Add rows that are set down already to a store, atomically.

    Rows before the earliest that changes are only copied. A row of a moment that the store has a
    request of stands behind the rows of that request.

    Args:
        folder: of the store.
        present: optional arrays that the records of the new rows have, those that the store has
            among them (:func:`present_with`).
        pieces: in the order of the rows; they are removed.
        replaced_after: rows shown after this moment (ms) leave the store: the new ones hold them
            again; None keeps every row.
        sort_bytes: memory that the sort of the rows from the earliest change on may take.
        engine: sorts one bucket of time after the other, or several at a time.
    """
    former = RequestStore.open(folder)
    columns = RequestColumns.of_store(folder)
    record = columns.record(present)
    earliest = min((piece.earliest for piece in pieces), default=NEVER)
    if replaced_after is not None:
        earliest = min(earliest, _first_shown_after(former, replaced_after))
    unchanged = int(np.searchsorted(former.request_time, earliest))
    left = _Left(replaced_after, len(columns.tasks))
    with TemporaryDirectory(dir=folder, prefix="spill-") as spill:
        stay = left.staying(_stored(former, columns, present, unchanged, len(former)))
        stays = [
            spill_records([records], Path(spill) / str(number))
            for number, records in enumerate(stay)
        ]
        written = _write(
            folder,
            columns,
            present,
            chain(
                _stored(former, columns, present, 0, unchanged),
                sorted_chunks([*stays, *pieces], record, sort_bytes, engine),
            ),
        )
    by_task = dict(zip(columns.tasks, left.labels.tolist(), strict=True))
    return Extended(written.requests, written.rows, left.rows, by_task)


def present_with(folder: Path, present: Sequence[str]) -> tuple[str, ...]:
    """The optional arrays of a store that rows are added to, and those that these have."""
    former = RequestStore.open(folder)
    return tuple(n for n in OPTIONAL if n in present or getattr(former, n) is not None)


def _spilled(
    frames: Iterable[pl.DataFrame],
    columns: RequestColumns,
    spill: Path,
) -> tuple[list[SpilledRequests], tuple[str, ...]]:
    """Frames set down, with the optional arrays that the first of them has."""
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        return [], ()
    present = columns.present_in(first.columns)
    pieces = [
        spill_requests(frame, columns, present, spill / str(number))
        for number, frame in enumerate(chain([first], rest))
    ]
    return pieces, present


class _Left:
    """Counts the rows that leave a store.

    Args:
        after: those shown after this moment (ms); None for none.
        num_tasks: labels of a row.
    """

    def __init__(self, after: int | None, num_tasks: int) -> None:
        self.after = after
        self.rows = 0
        self.labels = np.zeros(num_tasks)

    def staying(self, chunks: Iterable[NDArray]) -> Iterator[NDArray]:
        """The records that stay; the others are counted."""
        for records in chunks:
            stays = np.ones(len(records), bool)
            if self.after is not None:
                stays = _shown_at(records) <= self.after
            self.rows += int(np.count_nonzero(~stays))
            self.labels += np.nansum(records["labels"][~stays], axis=0, dtype=np.float64)
            yield records[stays]


def _write(
    folder: Path, columns: RequestColumns, present: Sequence[str], chunks: Iterable[NDArray]
) -> RequestCounts:
    """Make sorted records the store's content."""
    previous = read_manifest(folder)
    number = previous["number"] + 1 if previous else 1
    names = [*columns.arrays(present), "user", "request_time", "offsets"]
    writer = _ArrayWriter({name: folder / f"{name}.{number:06d}{_ARRAY_SUFFIX}" for name in names})
    with writer:
        for records in chunks:
            writer.append(records)
        arrays = writer.finish()
    sync_folder(folder)
    content = {
        "format_version": FORMAT_VERSION,
        "number": number,
        "tasks": columns.tasks,
        "context_categorical": columns.context_categorical,
        "context_dense": columns.context_dense,
        "arrays": arrays,
    }
    write_json(folder / MANIFEST, KIND, content)
    named = {entry["file"] for entry in arrays.values()}
    for stale in folder.glob(f"*{_ARRAY_SUFFIX}"):
        if stale.name not in named:
            stale.unlink()
    return RequestCounts(requests=writer.num_requests, rows=writer.num_rows)


def _first_shown_after(store: RequestStore, moment: int) -> int:
    """The request time of the first row that was shown after a moment; NEVER if none was."""
    if store.shown_at is None:
        position = int(np.searchsorted(store.request_time, moment, side="right"))
        return int(store.request_time[position]) if position < len(store) else NEVER
    for first in range(0, store.num_rows, CHUNK_ROWS):
        late = np.flatnonzero(store.shown_at[first : first + CHUNK_ROWS] > moment)
        if len(late):
            request = np.searchsorted(store.offsets, first + late[0], side="right") - 1
            return int(store.request_time[request])
    return NEVER


def _shown_at(records: NDArray) -> NDArray[np.int64]:
    names = records.dtype.names or ()
    shown: NDArray[np.int64] = records[SHOWN_AT if SHOWN_AT in names else "request_time"]
    return shown


def _stored(
    store: RequestStore, columns: RequestColumns, present: Sequence[str], first: int, last: int
) -> Iterator[NDArray]:
    """The rows of some requests as records, in chunks that end with a request."""
    while first < last:
        wanted = store.offsets[first] + CHUNK_ROWS
        stop = max(first + 1, int(np.searchsorted(store.offsets, wanted, side="right")) - 1)
        stop = min(stop, last)
        rows = slice(int(store.offsets[first]), int(store.offsets[stop]))
        records = np.empty(rows.stop - rows.start, columns.record(present))
        lengths = np.diff(store.offsets[first : stop + 1])
        records["user"] = np.repeat(store.user[first:stop], lengths)
        records["request_time"] = np.repeat(store.request_time[first:stop], lengths)
        for name in columns.arrays(present):
            array = getattr(store, name)
            if array is not None:
                records[name] = array[rows]
            else:  # what only the added rows have
                records[name] = records["request_time"] if name == SHOWN_AT else np.nan
        yield records
        first = stop


class _ArrayWriter:
    """Appends sorted rows to the store's array files."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths
        self._entries: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        self._checksums = dict.fromkeys(paths, 0)
        self.num_requests = 0
        self.num_rows = 0

    def __enter__(self) -> Self:
        self._files = {name: path.open("wb") for name, path in self._paths.items()}
        self._write("offsets", np.zeros(1, np.int64))
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, records: NDArray) -> None:
        """Write rows sorted by (request time, user); no request may span two calls."""
        user, time = records["user"], records["request_time"]
        first = np.flatnonzero(
            np.append(True, (user[1:] != user[:-1]) | (time[1:] != time[:-1]))[: len(records)]
        )
        self._write("user", user[first])
        self._write("request_time", time[first])
        self._write("offsets", self.num_rows + np.append(first, len(records))[1:])
        for name in self._paths.keys() - {"user", "request_time", "offsets"}:
            self._write(name, records[name])
        self.num_requests += len(first)
        self.num_rows += len(records)

    def finish(self) -> dict[str, dict[str, object]]:
        """Force the arrays to the disk; returns their entries in the manifest."""
        lengths = {"user": self.num_requests, "request_time": self.num_requests}
        lengths["offsets"] = self.num_requests + 1
        for file in self._files.values():
            sync_file(file)
        return {
            name: {
                "file": self._paths[name].name,
                "dtype": dtype.str,
                "shape": [lengths.get(name, self.num_rows), *inner],
                "crc32": self._checksums[name],
            }
            for name, (dtype, inner) in sorted(self._entries.items())
        }

    def _write(self, name: str, array: NDArray) -> None:
        self._entries[name] = (array.dtype, array.shape[1:])
        content = np.ascontiguousarray(array).tobytes()
        self._checksums[name] = zlib.crc32(content, self._checksums[name])
        self._files[name].write(content)
