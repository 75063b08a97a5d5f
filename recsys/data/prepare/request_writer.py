"""Writing the request rows of one split, sorted by recommendation moment, in bounded memory.

Legend: K tasks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import sync_file, sync_folder
from recsys.core.errors import DataError
from recsys.core.json_files import write_json
from recsys.data.contract.schema import Task
from recsys.data.stores.requests import FORMAT_VERSION, KIND, MANIFEST, TRUTHS, read_manifest

#: How much memory the sort of rows may take; more rows are sorted in buckets of time.
DEFAULT_SORT_BYTES = 512 << 20

_ARRAY_SUFFIX = ".bin"
_CHUNK_ROWS = 1_000_000
_SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class RequestCounts:
    """How much was written: requests, and rows over all requests."""

    requests: int
    rows: int


def write_requests(
    path: Path | str,
    frames: Iterable[pl.DataFrame],
    tasks: Sequence[Task],
    context_categorical: Sequence[str] = (),
    context_dense: Sequence[str] = (),
    sort_bytes: int = DEFAULT_SORT_BYTES,
) -> RequestCounts:
    """Group rows by (user, request time) and write the store of one split, atomically.

    Rows are spilled to the disk, divided into buckets of time that fit into ``sort_bytes``, sorted
    bucket by bucket, and written. A store at ``path`` stays as it is until the new one is whole.

    Args:
        path: folder of the store.
        frames: ``user``, ``item`` (indices), ``request_time`` (ms), the label columns of
            ``tasks`` and the context columns; labels may be null. Where the source knows the
            truth, ``best_absolute_<task>`` and ``best_within_reach_<task>`` too. Rows in any
            order; rows of a request stay in the order they come in.
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
    previous = read_manifest(folder)
    number = previous["number"] + 1 if previous else 1
    with TemporaryDirectory(dir=folder, prefix="spill-") as spill:
        present = _spill(frames, columns, Path(spill) / "rows")
        names = [*columns.arrays(present), "user", "request_time", "offsets"]
        writer = _ArrayWriter(
            {name: folder / f"{name}.{number:06d}{_ARRAY_SUFFIX}" for name in names}
        )
        with writer:
            for records in _sorted_buckets(
                Path(spill) / "rows", columns.record(present), sort_bytes
            ):
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
    for file in folder.glob(f"*{_ARRAY_SUFFIX}"):
        if file.name not in named:
            file.unlink()
    return RequestCounts(requests=writer.num_requests, rows=writer.num_rows)


@dataclass(frozen=True)
class _Columns:
    """Which frame columns make up which array."""

    tasks: tuple[str, ...]
    context_categorical: tuple[str, ...]
    context_dense: tuple[str, ...]

    def arrays(self, truths: Sequence[str]) -> dict[str, tuple[np.dtype, tuple[str, ...] | None]]:
        """Per row array its dtype and frame columns; ``None``: one column of the same name."""
        number, index = np.dtype(np.float32), np.dtype(np.int32)
        return {
            "item": (index, None),
            "labels": (number, tuple(f"label_{task}" for task in self.tasks)),
            "context_categorical": (index, self.context_categorical),
            "context_dense": (number, self.context_dense),
            **{t: (number, tuple(f"{t}_{task}" for task in self.tasks)) for t in truths},
        }

    def record(self, truths: Sequence[str]) -> np.dtype:
        """A row as it is spilled."""
        fields: list[tuple[str, np.dtype, tuple[int, ...]]] = [
            ("user", np.dtype(np.int32), ()),
            ("request_time", np.dtype(np.int64), ()),
        ]
        for name, (dtype, columns) in self.arrays(truths).items():
            fields.append((name, dtype, () if columns is None else (len(columns),)))
        return np.dtype(fields)

    def records_of(self, frame: pl.DataFrame, truths: Sequence[str]) -> NDArray:
        """Rows of a frame as records, with NaN for null numbers."""
        records = np.empty(frame.height, self.record(truths))
        records["user"] = _column(frame, "user", pl.Int32())
        records["request_time"] = _column(frame, "request_time", pl.Int64())
        for name, (dtype, columns) in self.arrays(truths).items():
            kind = pl.Float32() if dtype == np.float32 else pl.Int32()
            if columns is None:
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


def _spill(frames: Iterable[pl.DataFrame], columns: _Columns, path: Path) -> tuple[str, ...]:
    """Write rows to one record file in the order they come; returns the truths they carry."""
    truths: tuple[str, ...] | None = None
    with path.open("wb") as file:
        for frame in frames:
            if truths is None:
                truths = tuple(
                    truth
                    for truth in TRUTHS
                    if any(f"{truth}_{task}" in frame.columns for task in columns.tasks)
                )
            for rows in frame.iter_slices(_CHUNK_ROWS):
                columns.records_of(rows, truths).tofile(file)
    return truths or ()


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
