"""Writing request rows, sorted by recommendation moment, and adding to them, in bounded memory.

Legend: K tasks.
"""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import sync_file, sync_folder
from recsys.core.errors import DataError
from recsys.core.json_files import write_json
from recsys.data.contract.schema import PROPENSITY, SHOWN_AT, Task
from recsys.data.stores.requests import (
    FORMAT_VERSION,
    KIND,
    MANIFEST,
    TRUTHS,
    RequestStore,
    read_manifest,
)

#: How much memory the sort of rows may take; more rows are sorted in buckets of time.
DEFAULT_SORT_BYTES = 512 << 20

_ARRAY_SUFFIX = ".bin"
_CHUNK_ROWS = 1_000_000
_SAMPLE_ROWS = 100_000
_NEVER = np.iinfo(np.int64).max
#: Arrays that not every store has.
_OPTIONAL = (SHOWN_AT, PROPENSITY, *TRUTHS)


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
    folder.mkdir(parents=True, exist_ok=True)
    columns = _Columns(
        tuple(task.name for task in tasks), tuple(context_categorical), tuple(context_dense)
    )
    with TemporaryDirectory(dir=folder, prefix="spill-") as spill:
        rows = Path(spill) / "rows"
        frames, present = columns.present_in(frames)
        with rows.open("wb") as file:
            _spill(frames, columns, present, file)
        records = _sorted_buckets(rows, columns.record(present), sort_bytes)
        return _write(folder, columns, present, records)


def extend_requests(
    path: Path | str,
    frames: Iterable[pl.DataFrame],
    replaced_after: int | None = None,
    sort_bytes: int = DEFAULT_SORT_BYTES,
) -> Extended:
    """Add rows to a store, atomically; rows before the earliest that changes are only copied.

    Args:
        path: folder of the store.
        frames: as those of ``write_requests``, tasks and context as the store has them. A row of a
            moment that the store has a request of stands behind the rows of that request.
        replaced_after: rows shown after this moment (ms) leave the store: ``frames`` hold them
            again; None keeps every row.
        sort_bytes: memory that the sort of the rows from the earliest change on may take.

    Raises:
        DataError: there is no store, or as ``write_requests``.
    """
    folder = Path(path)
    former = RequestStore.open(folder)
    columns = _Columns.of_store(folder)
    with TemporaryDirectory(dir=folder, prefix="spill-") as spill:
        frames, present = columns.present_in(frames)
        present = tuple(n for n in _OPTIONAL if n in present or getattr(former, n) is not None)
        new, rows = Path(spill) / "new", Path(spill) / "rows"
        with new.open("wb") as file:
            earliest = _spill(frames, columns, present, file)
        if replaced_after is not None:
            earliest = min(earliest, _first_shown_after(former, replaced_after))
        unchanged = int(np.searchsorted(former.request_time, earliest))
        replaced, labels = 0, np.zeros(len(columns.tasks))
        with rows.open("wb") as file:
            for records in _stored(former, columns, present, unchanged, len(former)):
                stays = np.ones(len(records), bool)
                if replaced_after is not None:
                    stays = _shown_at(records) <= replaced_after
                records[stays].tofile(file)
                replaced += int(np.count_nonzero(~stays))
                labels += np.nansum(records["labels"][~stays], axis=0, dtype=np.float64)
            with new.open("rb") as added:
                shutil.copyfileobj(added, file)
        new.unlink()
        written = _write(
            folder,
            columns,
            present,
            chain(
                _stored(former, columns, present, 0, unchanged),
                _sorted_buckets(rows, columns.record(present), sort_bytes),
            ),
        )
    by_task = dict(zip(columns.tasks, labels.tolist(), strict=True))
    return Extended(written.requests, written.rows, replaced, by_task)


def _write(
    folder: Path, columns: _Columns, present: Sequence[str], chunks: Iterable[NDArray]
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
    """The request time of the first row that was shown after a moment; _NEVER if none was."""
    if store.shown_at is None:
        position = int(np.searchsorted(store.request_time, moment, side="right"))
        return int(store.request_time[position]) if position < len(store) else _NEVER
    for first in range(0, store.num_rows, _CHUNK_ROWS):
        late = np.flatnonzero(store.shown_at[first : first + _CHUNK_ROWS] > moment)
        if len(late):
            request = np.searchsorted(store.offsets, first + late[0], side="right") - 1
            return int(store.request_time[request])
    return _NEVER


def _shown_at(records: NDArray) -> NDArray[np.int64]:
    names = records.dtype.names or ()
    shown: NDArray[np.int64] = records[SHOWN_AT if SHOWN_AT in names else "request_time"]
    return shown


def _stored(
    store: RequestStore, columns: _Columns, present: Sequence[str], first: int, last: int
) -> Iterator[NDArray]:
    """The rows of some requests as records, in chunks that end with a request."""
    while first < last:
        wanted = store.offsets[first] + _CHUNK_ROWS
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


@dataclass(frozen=True)
class _Columns:
    """Which frame columns make up which array."""

    tasks: tuple[str, ...]
    context_categorical: tuple[str, ...]
    context_dense: tuple[str, ...]

    @classmethod
    def of_store(cls, folder: Path) -> Self:
        """Those that a store was written from."""
        content = read_manifest(folder) or {}
        names = ("tasks", "context_categorical", "context_dense")
        return cls(*(tuple(content[name]) for name in names))

    def present_in(
        self, frames: Iterable[pl.DataFrame]
    ) -> tuple[Iterable[pl.DataFrame], tuple[str, ...]]:
        """The frames, and the optional arrays that the first of them has columns of."""
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            return (), ()
        given = [name for name in (SHOWN_AT, PROPENSITY) if name in first.columns]
        given += [
            name for name in TRUTHS if any(f"{name}_{t}" in first.columns for t in self.tasks)
        ]
        return chain([first], rest), tuple(name for name in _OPTIONAL if name in given)

    def arrays(self, present: Sequence[str]) -> dict[str, tuple[np.dtype, tuple[str, ...] | None]]:
        """Per row array its dtype and frame columns; ``None``: one column of the same name."""
        number, index = np.dtype(np.float32), np.dtype(np.int32)
        return {
            "item": (index, None),
            "labels": (number, tuple(f"label_{task}" for task in self.tasks)),
            "context_categorical": (index, self.context_categorical),
            "context_dense": (number, self.context_dense),
            **({SHOWN_AT: (np.dtype(np.int64), None)} if SHOWN_AT in present else {}),
            **({PROPENSITY: (number, None)} if PROPENSITY in present else {}),
            **{
                truth: (number, tuple(f"{truth}_{task}" for task in self.tasks))
                for truth in TRUTHS
                if truth in present
            },
        }

    def record(self, present: Sequence[str]) -> np.dtype:
        """A row as it is spilled."""
        fields: list[tuple[str, np.dtype, tuple[int, ...]]] = [
            ("user", np.dtype(np.int32), ()),
            ("request_time", np.dtype(np.int64), ()),
        ]
        for name, (dtype, columns) in self.arrays(present).items():
            fields.append((name, dtype, () if columns is None else (len(columns),)))
        return np.dtype(fields)

    def records_of(self, frame: pl.DataFrame, present: Sequence[str]) -> NDArray:
        """Rows of a frame as records, with NaN for null numbers."""
        records = np.empty(frame.height, self.record(present))
        records["user"] = _column(frame, "user", pl.Int32())
        records["request_time"] = _column(frame, "request_time", pl.Int64())
        for name, (dtype, columns) in self.arrays(present).items():
            kind = pl.Float32() if dtype == np.float32 else pl.Int32()
            if name == SHOWN_AT:
                shown = name if name in frame.columns else "request_time"
                records[name] = _column(frame, shown, pl.Int64())
            elif columns is None:
                records[name] = _column(frame, name, kind)
            else:
                for position, column in enumerate(columns):
                    records[name][:, position] = _column(frame, column, kind)
        return records


def _column(frame: pl.DataFrame, name: str, dtype: pl.DataType) -> NDArray:
    if name not in frame.columns:
        raise DataError(f"request rows lack the column {name}.")
    try:
        column = frame[name].cast(dtype)
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"column {name} of request rows does not fit its type: {error}") from error
    if column.null_count() and not dtype.is_float():
        raise DataError(
            f"column {name} of request rows has {column.null_count()} null value(s); "
            "give unknown ids and categories the index 0."
        )
    return column.fill_null(float("nan")).to_numpy() if dtype.is_float() else column.to_numpy()


def _spill(
    frames: Iterable[pl.DataFrame], columns: _Columns, present: Sequence[str], file: BinaryIO
) -> int:
    """Write rows to a record file in the order they come; returns the earliest request time."""
    earliest = _NEVER
    for frame in frames:
        for rows in frame.iter_slices(_CHUNK_ROWS):
            records = columns.records_of(rows, present)
            if len(records):
                earliest = min(earliest, int(records["request_time"].min()))
            records.tofile(file)
    return earliest


def _sorted_buckets(spill: Path, record: np.dtype, sort_bytes: int) -> Iterator[NDArray]:
    """The spilled rows sorted by (request time, user), stably, bucket of time by bucket."""
    num_buckets = math.ceil(3 * spill.stat().st_size / sort_bytes)  # rows, order, sorted rows
    if num_buckets <= 1:
        yield _sorted(np.fromfile(spill, record))
        return
    rows = np.memmap(spill, record, mode="r")
    sample = rows["request_time"][:: max(1, len(rows) // _SAMPLE_ROWS)]
    edges = np.unique(np.quantile(sample, np.arange(1, num_buckets) / num_buckets).astype(np.int64))
    buckets = [spill.with_name(f"bucket-{number}") for number in range(len(edges) + 1)]
    files: list[BinaryIO] = [bucket.open("wb") for bucket in buckets]
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = np.asarray(rows[start : start + _CHUNK_ROWS])
        # equal times fall into one bucket, so no request is torn apart
        bucket_of = np.searchsorted(edges, chunk["request_time"], side="right")
        for number in np.unique(bucket_of).tolist():
            chunk[bucket_of == number].tofile(files[number])
    for file in files:
        file.close()
    del rows
    spill.unlink()
    for bucket in buckets:
        yield _sorted(np.fromfile(bucket, record))
        bucket.unlink()


def _sorted(records: NDArray) -> NDArray:
    return records[np.lexsort((records["user"], records["request_time"]))]


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
