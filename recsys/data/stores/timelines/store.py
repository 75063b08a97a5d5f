"""Reading timelines: the only place that cuts histories, always strictly before a moment.

Legend: B requests, E events over all requests.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import DataError
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.contract.schema import LENGTHS, TIMELINE_COLUMNS, TimelineKind
from recsys.data.stores.timelines.layout import (
    Block,
    StoreManifest,
    map_block,
    partition_of,
)

#: Where the paper cuts each timeline (DV365 §3.1): the newest events that are read.
DEFAULT_MAX_EVENTS = 35_000

#: Below this number one search per range is faster than one search over all of them (measured).
_FEW_RANGES = 64

#: How often a reader starts again when a writer replaces files between its steps.
_OPEN_ATTEMPTS = 10


@dataclass(frozen=True)
class Ranges:
    """Rows of one block that hold the histories of some requests.

    Attributes:
        requests: positions of the requests, ascending.
        start: first row of each.
        stop: one past the last row of each; every row before it is strictly before the cutoff.
    """

    block: Block
    requests: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


class TimelineStore:
    """Two timelines per user, memory-mapped, as they were when the store was opened.

    A reader keeps seeing the old store while a writer commits; open it again to see the new one.
    Pickled to another process it is opened there again.
    """

    def __init__(self, path: Path, manifest: StoreManifest) -> None:
        self.path = path
        self._manifest = manifest
        num_partitions = manifest.num_partitions
        # per kind and partition the blocks of all segments, oldest segment first
        self._blocks: dict[TimelineKind, list[list[Block]]] = {
            kind: [[] for _ in range(num_partitions)] for kind in TimelineKind
        }
        for segment in manifest.segments:
            for partition, entry in enumerate(segment.blocks):
                if entry is not None:
                    for kind, block in map_block(path, entry).items():
                        self._blocks[kind][partition].append(block)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Map the store's current content.

        Raises:
            DataError: there is no store at ``path``, a file of it is missing or damaged, or it
                has more files than the process may open.
        """
        folder = Path(path)
        for _ in range(_OPEN_ATTEMPTS):
            manifest = StoreManifest.load(folder)
            try:
                return cls(folder, manifest)
            except FileNotFoundError as error:
                missing = error.filename
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise DataError(
                    f"the timelines in {folder} have {len(manifest.files)} files in "
                    f"{len(manifest.segments)} segments, more than this process may open; merge "
                    "them with `recsys data compact dataset=<the data set>`, or raise the limit "
                    "with `ulimit -n`."
                ) from error
        raise DataError(
            f"{missing} is missing though the timelines name it; restore them from a copy or "
            f"{PREPARE_AGAIN}"
        )

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Open the store again in the process that unpickles it."""
        return type(self).open, (self.path,)

    @property
    def num_segments(self) -> int:
        """Appends since the last compaction."""
        return len(self._manifest.segments)

    def num_events(self, kind: TimelineKind) -> int:
        """Events of one timeline kind over all users."""
        return sum(block.events[kind] for block in self._manifest.blocks)

    def users(self) -> NDArray[np.int32]:
        """Every user that has an event, ascending."""
        users = [
            block.users
            for partitions in self._blocks.values()
            for blocks in partitions
            for block in blocks
        ]
        return np.unique(np.concatenate([np.empty(0, np.int32), *users]))

    def history(
        self,
        user: int,
        before: int,
        kind: TimelineKind,
        max_events: int = DEFAULT_MAX_EVENTS,
    ) -> dict[str, NDArray]:
        """A user's newest ``max_events`` events strictly before ``before``, oldest first.

        Args:
            user: user index; an unknown user has no events.
            before: cutoff in ms; events at this very moment are left out.
            kind: which of the two timelines.
            max_events: how many events at most.

        Returns:
            One array per column of the timeline kind; read-only views into the store where the
            history lies in one segment.
        """
        history = self.histories([user], [before], kind, max_events)
        del history[LENGTHS]
        return history

    def histories(
        self,
        users: ArrayLike,
        before: ArrayLike,
        kind: TimelineKind,
        max_events: int = DEFAULT_MAX_EVENTS,
        columns: Collection[str] | None = None,
    ) -> dict[str, NDArray]:
        """The histories of B requests side by side.

        Args:
            users: [B] user indices.
            before: [B] cutoffs in ms; every event is strictly before its request's cutoff.
            kind: which of the two timelines.
            max_events: how many events per request at most, the newest ones.
            columns: names of those that are wanted beside ``timestamp``; None for all.

        Returns:
            ``lengths`` [B] int64 and one array [E] per column, a request's events oldest first.
        """
        users, before = np.asarray(users, np.int32), np.asarray(before, np.int64)
        if max_events < 0:
            raise ValueError(f"max_events is {max_events}, it must not be negative")
        pieces: list[tuple[Block, int, int]] = []
        lengths = np.zeros(len(users), np.int64)
        owners: list[NDArray[np.int64]] = []
        for found in self._ranges(users, before, kind):
            # a segment's events older than its newest max_events are never among the newest of all
            start = np.maximum(found.start, found.stop - max_events)
            lengths[found.requests] += found.stop - start
            owners.append(found.requests)
            pieces.extend(
                (found.block, first, last)
                for first, last in zip(start.tolist(), found.stop.tolist(), strict=True)
            )
        # stable: the pieces of one request stay in the order of the segments
        owner = np.concatenate([np.empty(0, np.int64), *owners])
        order = np.argsort(owner, kind="stable")
        pieces = [pieces[position] for position in order.tolist()]
        joined = {
            name: _join(pieces, name, dtype)
            for name, dtype in TIMELINE_COLUMNS[kind].items()
            if columns is None or name in columns or name == "timestamp"
        }
        if len(pieces) > 1 and (np.diff(owner[order]) == 0).any():
            joined, lengths = _merge_segments(joined, lengths, max_events)
        return {LENGTHS: lengths, **joined}

    def lengths(
        self,
        users: ArrayLike,
        before: ArrayLike,
        kind: TimelineKind,
        max_events: int = DEFAULT_MAX_EVENTS,
    ) -> NDArray[np.int64]:
        """[B] number of events that ``histories`` of the same arguments would give."""
        users, before = np.asarray(users, np.int32), np.asarray(before, np.int64)
        lengths = np.zeros(len(users), np.int64)
        for found in self._ranges(users, before, kind):
            lengths[found.requests] += found.stop - found.start
        return np.minimum(lengths, max_events)

    def _ranges(
        self, users: NDArray[np.int32], before: NDArray[np.int64], kind: TimelineKind
    ) -> Iterator[Ranges]:
        """Rows strictly before the cutoffs, per partition and segment, where there are any."""
        partition = partition_of(users, self._manifest.num_partitions)
        order = np.argsort(partition, kind="stable")
        counts = np.bincount(partition, minlength=self._manifest.num_partitions)
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            requests = order[ends[number] - counts[number] : ends[number]]
            for block in self._blocks[kind][number]:
                yield from ranges_in(block, users, before, requests)


def ranges_in(
    block: Block,
    users: NDArray[np.int32],
    before: NDArray[np.int64],
    requests: NDArray[np.int64],
) -> Iterator[Ranges]:
    """Rows of one block strictly before the cutoffs of some requests, where there are any."""
    position, owners = users_in(block, users, requests)
    start, end = block.offsets[position], block.offsets[position + 1]
    stop = first_not_before(block.columns["timestamp"], start, end, before[owners])
    found = stop > start
    if found.any():
        yield Ranges(block, owners[found], start[found], stop[found])


def users_in(
    block: Block, users: NDArray[np.int32], requests: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where in a block users of some requests are, and of which requests: of those there."""
    position = np.searchsorted(block.users, users[requests])
    known = position < len(block.users)
    known[known] = block.users[position[known]] == users[requests][known]
    return position[known], requests[known]


def first_not_before(
    timestamps: NDArray[np.integer],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    before: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Per range of ascending timestamps, the first row at or after ``before``, by binary search:
    range by range for a few of them, over all ranges at once for many.
    """
    if len(start) < _FEW_RANGES:
        found = [
            first + int(timestamps[first:last].searchsorted(moment))
            for first, last, moment in zip(
                start.tolist(), end.tolist(), before.tolist(), strict=True
            )
        ]
        return np.array(found, np.int64)
    low = start.copy()
    last = len(timestamps) - 1
    step = (1 << int((end - start).max(initial=0)).bit_length()) >> 1
    while step:  # as much further as what lies there is earlier still
        ahead = low + (step - 1)
        earlier = ahead < end
        earlier &= timestamps.take(np.minimum(ahead, last)) < before
        low += step * earlier
        step >>= 1
    return low


def _join(pieces: list[tuple[Block, int, int]], name: str, dtype: np.dtype) -> NDArray:
    """One column of all pieces side by side; a view where there is only one piece."""
    views = [block.columns[name][start:stop] for block, start, stop in pieces]
    if len(views) == 1:
        return views[0]
    # for long histories twice as fast as one gather by row number; for those under 200 events
    # the gather would save a few microseconds per request
    return np.concatenate(views) if views else np.empty(0, dtype)


def _merge_segments(
    columns: dict[str, NDArray], lengths: NDArray[np.int64], max_events: int
) -> tuple[dict[str, NDArray], NDArray[np.int64]]:
    """Bring pieces of several segments into time order, stably, and cut to the newest events."""
    timestamps = columns["timestamp"]
    ends = np.cumsum(lengths)
    rows = np.arange(len(timestamps))
    request = np.repeat(np.arange(len(lengths)), lengths)
    late = (np.diff(timestamps) < 0) & (request[1:] == request[:-1])
    for position in np.unique(request[1:][late]).tolist():
        first, last = ends[position] - lengths[position], ends[position]
        rows[first:last] = first + np.argsort(timestamps[first:last], kind="stable")
    kept = rows[np.repeat(ends, lengths) - np.arange(len(rows)) <= max_events]
    return {name: column[kept] for name, column in columns.items()}, np.minimum(lengths, max_events)
