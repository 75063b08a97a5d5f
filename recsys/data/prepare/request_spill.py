"""Request rows as records on the disk, in pieces that any process may have written, and sorted.

Legend: K tasks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.engines import Engine
from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.schema import PROPENSITY, SHOWN_AT
from recsys.data.stores.requests import TRUTHS, read_manifest

#: Later than every request.
NEVER = np.iinfo(np.int64).max
#: Rows that are records at a time.
CHUNK_ROWS = 1_000_000
#: Arrays that not every store has.
OPTIONAL = (SHOWN_AT, PROPENSITY, *TRUTHS)

#: Request times of a piece that say how those of its rows are distributed.
_SAMPLE_ROWS = 4_096


@dataclass(frozen=True)
class RequestColumns:
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

    def present_in(self, frame_columns: Collection[str]) -> tuple[str, ...]:
        """The optional arrays that a frame of these columns has something of."""
        given = [name for name in (SHOWN_AT, PROPENSITY) if name in frame_columns]
        given += [
            name for name in TRUTHS if any(f"{name}_{t}" in frame_columns for t in self.tasks)
        ]
        return tuple(name for name in OPTIONAL if name in given)

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


@dataclass(frozen=True, eq=False)
class SpilledRequests:
    """Rows set down as records in the order they came, or by bucket of time.

    Attributes:
        path: the file.
        rows: number of records.
        earliest: their first request time, ms; :data:`NEVER` without rows.
        sample: some of the request times, evenly from all.
        counts: rows of each bucket, once they are divided.
    """

    path: Path
    rows: int
    earliest: int
    sample: NDArray[np.int64]
    counts: NDArray[np.int64] | None = None


def spill_records(chunks: Iterable[NDArray], path: Path) -> SpilledRequests:
    """Set records down in the order they come."""
    rows, earliest, times = 0, NEVER, [np.empty(0, np.int64)]
    with path.open("wb") as file:
        for records in chunks:
            rows += len(records)
            if len(records):
                earliest = min(earliest, int(records["request_time"].min()))
                times.append(records["request_time"].copy())
            records.tofile(file)
    sample = np.concatenate(times)[:: max(1, rows // _SAMPLE_ROWS)]
    return SpilledRequests(path, rows, earliest, sample)


def spill_requests(
    frame: pl.DataFrame, columns: RequestColumns, present: Sequence[str], path: Path
) -> SpilledRequests:
    """Set rows of a frame down in the order they stand in it."""
    slices = frame.iter_slices(CHUNK_ROWS)
    return spill_records((columns.records_of(rows, present) for rows in slices), path)


def sorted_chunks(
    pieces: Sequence[SpilledRequests], record: np.dtype, sort_bytes: int, engine: Engine
) -> Iterator[NDArray]:
    """The rows of all pieces sorted by (request time, user), stably, bucket of time by bucket.

    Args:
        pieces: in the order that counts where time and user are equal; they are removed.
        record: of a row.
        sort_bytes: memory that the sort of a bucket may take.
        engine: sorts one bucket after the other, or several at a time.
    """
    size = sum(piece.rows for piece in pieces) * record.itemsize
    num_buckets = math.ceil(3 * size / sort_bytes)  # rows, order, sorted rows
    edges = _edges(pieces, num_buckets)
    divided = list(engine.map(_Divide(record, edges), pieces))
    buckets = range(len(edges) + 1)
    yield from track(
        engine.map(_Sort(record, divided), buckets, bulky=True), "Sorting requests", len(buckets)
    )
    for piece in divided:
        piece.path.unlink()


def _edges(pieces: Sequence[SpilledRequests], num_buckets: int) -> NDArray[np.int64]:
    """Moments between the buckets, at most one less than there are, all of about as many rows."""
    times = np.concatenate([np.empty(0, np.int64), *(piece.sample for piece in pieces)])
    if num_buckets <= 1 or not len(times):
        return np.empty(0, np.int64)
    # every time of a sample stands for as many rows of its piece
    weights = [np.full(len(p.sample), p.rows / max(1, len(p.sample))) for p in pieces]
    order = np.argsort(times, kind="stable")
    below = np.cumsum(np.concatenate(weights)[order])
    wanted = below[-1] * np.arange(1, num_buckets) / num_buckets
    return np.unique(times[order][np.searchsorted(below, wanted)])


@dataclass(frozen=True, eq=False)
class _Divide:
    """Puts the rows of a piece in the order of the buckets."""

    record: np.dtype
    edges: NDArray[np.int64]

    def __call__(self, piece: SpilledRequests) -> SpilledRequests:
        if not len(self.edges):
            return replace(piece, counts=np.array([piece.rows]))
        records = np.fromfile(piece.path, self.record)
        # equal times fall into one bucket, so no request is torn apart
        bucket = np.searchsorted(self.edges, records["request_time"], side="right")
        bucket = bucket.astype(np.int32)
        path = piece.path.with_suffix(".divided")
        records.take(np.argsort(bucket, kind="stable")).tofile(path)
        counts = np.bincount(bucket, minlength=len(self.edges) + 1)
        return replace(piece, path=path, counts=counts)


@dataclass(frozen=True)
class _Sort:
    """Reads a bucket of all pieces and sorts it."""

    record: np.dtype
    pieces: Sequence[SpilledRequests]

    def __call__(self, bucket: int) -> NDArray:
        counts = [piece.counts for piece in self.pieces if piece.counts is not None]
        records = np.empty(sum(int(count[bucket]) for count in counts), self.record)
        found = 0
        for piece, count in zip(self.pieces, counts, strict=True):
            rows = int(count[bucket])
            with piece.path.open("rb") as file:
                file.seek(int(count[:bucket].sum()) * self.record.itemsize)
                file.readinto(records[found : found + rows].view(np.uint8).data)
            found += rows
        return records[np.lexsort((records["user"], records["request_time"]))]
