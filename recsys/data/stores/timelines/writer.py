"""Appending to, deleting from and compacting a timeline store, in bounded memory."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.durable import PARTIAL, sync_folder
from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, TIMELINE_COLUMNS, TimelineKind
from recsys.data.stores.timelines.layout import (
    BLOCK_SUFFIX,
    CURRENT,
    BlockEntry,
    Events,
    Segment,
    StoreManifest,
    events_of,
    map_checked_block,
    partition_of,
    write_block,
)

if TYPE_CHECKING:
    from recsys.core.engines import Engine

_COLUMNS = {"user": np.dtype(np.int32)} | {
    name: dtype for columns in TIMELINE_COLUMNS.values() for name, dtype in columns.items()
}
#: Columns of the frames that are appended; vocabulary indices and codes, no raw ids.
EVENT_SCHEMA: dict[str, pl.DataType] = {
    name: pl.Series(np.empty(0, dtype)).dtype for name, dtype in _COLUMNS.items()
}
DEFAULT_PARTITIONS = 16

#: One event of either timeline, as it lies beside others before it is sorted.
EVENT_RECORD = np.dtype(list(_COLUMNS.items()))
_NULLABLE = [name for name, dtype in _COLUMNS.items() if dtype.kind == "f"]
_IMPRESSION_CODE = ACTION_TYPES.index(IMPRESSION)
_SLICE_ROWS = 1_000_000


class TimelineWriter:
    """The one writer of a timeline store; every change is committed by one atomic rename.

    Opening it makes an empty store where there is none, and removes what an interrupted writer
    left. A crash at any moment leaves the store before or after the change, never between.
    Memory is bounded by the largest partition: about 100 bytes per event of it.

    Args:
        path: folder of the store.
        num_partitions: number of user partitions of a new store; an existing one keeps its own.
            One partition should fit into memory three times: 16 for 50 million events.

    Raises:
        DataError: another process writes to the store, or the store is damaged.
    """

    def __init__(self, path: Path | str, num_partitions: int = DEFAULT_PARTITIONS) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / "LOCK").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise DataError(
                f"another process is writing to the timelines in {self.path}; "
                "wait until it has finished."
            ) from error
        if not (self.path / CURRENT).exists():
            StoreManifest(num_partitions, 0, ()).save(self.path)
        self._manifest = StoreManifest.load(self.path)
        self._remove_unnamed_files()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let another process write."""
        self.close()

    def close(self) -> None:
        """Let another process write; the writer cannot be used afterwards."""
        self._lock.close()

    @property
    def num_partitions(self) -> int:
        """The number of user partitions."""
        return self._manifest.num_partitions

    @property
    def num_segments(self) -> int:
        """How many appends the store consists of; ``compact`` makes them one."""
        return len(self._manifest.segments)

    def append(self, frames: Iterable[pl.DataFrame]) -> int:
        """Add events as a new segment and commit it.

        Args:
            frames: columns of ``EVENT_SCHEMA``, rows in any order; of two events of one user at
                one moment the earlier row comes first in the timeline. Impressions enter the
                implicit timeline, every other action the explicit one.

        Returns:
            The number of events added.

        Raises:
            DataError: a column is missing, has nulls, or does not fit its type.
        """
        spill = self.path / "spill"
        spill.mkdir()
        try:
            pieces = (
                spill_events(frame, spill / str(number), self.num_partitions)
                for number, frame in enumerate(frames)
            )
            return self.append_spilled(list(pieces))
        finally:
            shutil.rmtree(spill, ignore_errors=True)  # a commit has removed it

    def append_spilled(self, pieces: Sequence[SpilledEvents], engine: Engine | None = None) -> int:
        """Add events that were set down by :func:`spill_events` as a new segment and commit it.

        Args:
            pieces: of ``num_partitions``; of two events of one user at one moment that of the
                earlier piece comes first in the timeline, in a piece the earlier row.
            engine: sorts several partitions at a time; None: this process one after the other.

        Returns:
            The number of events added.
        """
        numbers = range(self.num_partitions)
        names = [self._block_name(partition) for partition in numbers]
        write = _WriteBlock(self.path.absolute(), names, pieces)
        each = map if engine is None else engine.map
        blocks = track(each(write, numbers), "Sorting timelines", len(numbers))
        segment = Segment(tuple(blocks))
        if any(segment.blocks):
            self._commit((*self._manifest.segments, segment))
        return sum(int(piece.counts.sum()) for piece in pieces)

    def delete_users(self, users: Collection[int]) -> int:
        """Remove users' events for good: the blocks that hold them are rewritten without them.

        A reader opened before keeps its old files until it is closed.

        Returns:
            The number of events removed.
        """
        doomed = np.unique(np.fromiter(users, dtype=np.int32, count=len(users)))
        before = self._count_events()
        segments = []
        for segment_number, segment in enumerate(self._manifest.segments):
            blocks = list(segment.blocks)
            for partition in np.unique(partition_of(doomed, self._manifest.num_partitions)):
                entry = blocks[partition]
                if entry is None:
                    continue
                mapped = map_checked_block(self.path, entry)
                if any(np.isin(doomed, block.users).any() for block in mapped.values()):
                    kept = {kind: events_of(block, doomed) for kind, block in mapped.items()}
                    blocks[partition] = self._write(int(partition), kept, segment_number)
            if any(blocks):
                segments.append(Segment(tuple(blocks)))
        self._commit(tuple(segments))
        return before - self._count_events()

    def compact(self) -> None:
        """Merge all segments into one, which makes reading as fast as after a single append."""
        if len(self._manifest.segments) < 2:
            return
        partitions = track(range(self._manifest.num_partitions), "Merging timelines")
        blocks = [self._write(partition, self._merged(partition)) for partition in partitions]
        self._commit((Segment(tuple(blocks)),))

    def _merged(self, partition: int) -> dict[TimelineKind, Events]:
        """The events of one partition over all segments, oldest segment first."""
        mapped = [
            map_checked_block(self.path, entry)
            for segment in self._manifest.segments
            if (entry := segment.blocks[partition])
        ]
        merged: dict[TimelineKind, Events] = {}
        for kind in TimelineKind:
            parts = [events_of(blocks_by_kind[kind]) for blocks_by_kind in mapped]
            names = {"user": np.dtype(np.int32), **TIMELINE_COLUMNS[kind]}
            merged[kind] = {
                name: np.concatenate([np.empty(0, dtype), *(part.pop(name) for part in parts)])
                for name, dtype in names.items()
            }
        return merged

    def _write(
        self, partition: int, timelines: dict[TimelineKind, Events], segment: int = 0
    ) -> BlockEntry | None:
        return _write_unless_empty(self.path / self._block_name(partition, segment), timelines)

    def _block_name(self, partition: int, segment: int = 0) -> str:
        return f"{self._manifest.commit + 1:06d}-{segment:04d}-{partition:04d}{BLOCK_SUFFIX}"

    def _commit(self, segments: tuple[Segment, ...]) -> None:
        sync_folder(self.path)  # the new blocks' names are on the disk before they are named
        manifest = StoreManifest(self._manifest.num_partitions, self._manifest.commit + 1, segments)
        manifest.save(self.path)
        self._manifest = manifest
        self._remove_unnamed_files()

    def _remove_unnamed_files(self) -> None:
        shutil.rmtree(self.path / "spill", ignore_errors=True)
        for file in self.path.iterdir():
            unnamed_block = file.suffix == BLOCK_SUFFIX and file.name not in self._manifest.files
            if unnamed_block or file.suffix == PARTIAL:
                file.unlink()
        sync_folder(self.path)

    def _count_events(self) -> int:
        return sum(sum(block.events.values()) for block in self._manifest.blocks)


@dataclass(frozen=True)
class SpilledEvents:
    """Events set down as records, slice by slice, those of a slice by partition of its users.

    Attributes:
        path: the file.
        counts: [slices, partitions] int64, how many records of each there are.
    """

    path: Path
    counts: NDArray[np.int64]

    def read(self, partition: int, into: NDArray) -> int:
        """Read the records of a partition to the front of ``into``; returns their number."""
        starts = np.append(0, np.cumsum(self.counts)).reshape(-1)
        found = 0
        with self.path.open("rb") as file:
            for number, count in enumerate(self.counts[:, partition].tolist()):
                place = starts[number * self.counts.shape[1] + partition]
                file.seek(int(place) * EVENT_RECORD.itemsize)
                file.readinto(into[found : found + count].view(np.uint8).data)
                found += count
        return found


def spill_events(frame: pl.DataFrame, path: Path, num_partitions: int) -> SpilledEvents:
    """Set events down for :meth:`TimelineWriter.append_spilled`.

    Args:
        frame: as those of :meth:`TimelineWriter.append`.
        path: a new file.
        num_partitions: of the store.

    Raises:
        DataError: as :meth:`TimelineWriter.append`.
    """
    counts = [np.zeros(num_partitions, np.int64)]
    with path.open("wb") as file:
        for rows in frame.iter_slices(_SLICE_ROWS):
            records = _records_of(rows)
            partition = partition_of(records["user"], num_partitions).astype(np.int16)
            # `take` moves whole records, seven times as fast as indexing
            records.take(np.argsort(partition, kind="stable")).tofile(file)
            counts.append(np.bincount(partition, minlength=num_partitions))
    return SpilledEvents(path, np.array(counts))


@dataclass(frozen=True)
class _WriteBlock:
    """Writes the block of a partition.

    Attributes:
        folder: of the store.
        names: of the blocks.
        pieces: the events.
    """

    folder: Path
    names: Sequence[str]
    pieces: Sequence[SpilledEvents]

    def __call__(self, partition: int) -> BlockEntry | None:
        """What was written; None where the partition has no events."""
        total = sum(int(piece.counts[:, partition].sum()) for piece in self.pieces)
        records = np.empty(total, EVENT_RECORD)
        found = 0
        for piece in self.pieces:
            found += piece.read(partition, records[found:])
        return _write_unless_empty(self.folder / self.names[partition], split_kinds(records))


def _write_unless_empty(path: Path, timelines: dict[TimelineKind, Events]) -> BlockEntry | None:
    if not any(len(events["user"]) for events in timelines.values()):
        return None
    return write_block(path, timelines)


def _records_of(frame: pl.DataFrame) -> NDArray:
    """Rows as records of ``EVENT_RECORD``, with NaN for null numbers."""
    missing = [name for name in EVENT_SCHEMA if name not in frame.columns]
    if missing:
        raise DataError(f"events for the timelines lack the column(s) {', '.join(missing)}.")
    try:
        typed = frame.select(pl.col(name).cast(dtype) for name, dtype in EVENT_SCHEMA.items())
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"events for the timelines do not fit their types: {error}") from error
    records = np.empty(typed.height, dtype=EVENT_RECORD)
    for name in EVENT_SCHEMA:
        column = typed[name]
        if name in _NULLABLE:
            column = column.fill_null(float("nan"))
        elif column.null_count():
            raise DataError(
                f"column {name} of events for the timelines has {column.null_count()} null "
                "value(s); give unknown ids the index 0."
            )
        records[name] = column.to_numpy()
    if len(records) and records["user"].min() < 0:
        raise DataError("column user of events for the timelines has negative indices.")
    return records


def split_kinds(records: NDArray, beside: tuple[str, ...] = ()) -> dict[TimelineKind, Events]:
    """Events of ``EVENT_RECORD``, and what stands beside it, by the timeline they belong to."""
    implicit = records["action_type"] == _IMPRESSION_CODE
    rows = {
        TimelineKind.EXPLICIT: np.flatnonzero(~implicit),
        TimelineKind.IMPLICIT: np.flatnonzero(implicit),
    }
    return {
        kind: {
            name: records[name].take(rows[kind])
            for name in ("user", *TIMELINE_COLUMNS[kind], *beside)
        }
        for kind in TimelineKind
    }
