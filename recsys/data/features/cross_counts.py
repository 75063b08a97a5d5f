"""How often and how lately a user dealt with a candidate's item, author, topic and content.

Legend: B requests, R rows (candidates over all requests), E events, W windows, A action types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import LENGTHS, MILLISECONDS_PER_HOUR
from recsys.data.stores.timelines.store import first_not_before

#: Age of what never happened, in hours.
NEVER = np.inf

#: Entries of the table that says at which row an index of a request is counted.
_TABLE_ENTRIES = 1 << 20


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of requests, side by side.

    Attributes:
        rows_per_request: [B] int64, sums to R.
        ids: by ``item``, ``author``, ``topic`` (or a content cluster) their indices [R]; the
            unknown index 0 is nothing that anybody dealt with.
    """

    rows_per_request: NDArray[np.int64]
    ids: Mapping[str, NDArray[np.integer]]


@dataclass(frozen=True, eq=False)
class CrossCounts:
    """What the histories of requests say of their candidates.

    Attributes:
        counts: by what is shared, [W, R, A] events of the user with it in each window.
        hours: by what is shared, [R, A] hours since the last one; :data:`NEVER` without one.
    """

    counts: dict[str, NDArray[np.int32]]
    hours: dict[str, NDArray[np.float32]]


def cross_counts(
    history: Mapping[str, NDArray],
    action: NDArray[np.integer],
    num_actions: int,
    cutoff: NDArray[np.int64],
    candidates: Candidates,
    sizes: Mapping[str, int],
    windows: Sequence[int | None],
) -> CrossCounts:
    """Count a history's events by what they share with each candidate.

    Args:
        history: jagged events of B requests as a timeline store gives them, every one strictly
            before its request's cutoff, oldest first: ``lengths`` [B], ``timestamp`` [E] and the
            columns of ``candidates.ids`` [E].
        action: [E] below A, what each event was.
        num_actions: A.
        cutoff: [B] ms, where the windows end.
        candidates: R rows.
        sizes: number of indices of each of ``candidates.ids``.
        windows: W lengths in hours, None for all time before.

    Example: a user who liked author 7 two hours and three days before, and skipped author 9 one
    hour before, is asked about items of the authors 7, 9 and 8. With windows of 24 hours and all
    time the counts of ``author`` for likes are [[1, 0, 0], [2, 0, 0]], and the hours since the last
    like [2, never, never].
    """
    windowed = _Windows(windows)
    request = np.repeat(np.arange(len(cutoff)), candidates.rows_per_request)  # [R]
    owner_of = np.repeat(np.arange(len(cutoff), dtype=np.int32), history[LENGTHS])  # [E]
    counts, hours = {}, {}
    for name, ids in candidates.ids.items():
        slot, row, event = matches(history[name], owner_of, request, ids, sizes[name])
        owner = request[row]
        age = cutoff[owner] - history["timestamp"][event]  # ms, above 0
        cell = row * num_actions + action[event]
        found = windowed.counts(cell, age, len(ids) * num_actions)
        counts[name] = found.reshape(len(windows), -1, num_actions)[:, slot]
        last = np.full(len(ids) * num_actions, NEVER, np.float32)
        # a request's events are oldest first, and of several assignments the last one stays
        last[cell] = age / MILLISECONDS_PER_HOUR
        hours[name] = last.reshape(-1, num_actions)[slot]
    return CrossCounts(counts, hours)


def history_counts(
    history: Mapping[str, NDArray],
    action: NDArray[np.integer],
    num_actions: int,
    cutoff: NDArray[np.int64],
    windows: Sequence[int | None],
) -> NDArray[np.int32]:
    """[W, B, A] all events of each history; arguments as of :func:`cross_counts`."""
    stop = np.cumsum(history[LENGTHS])
    start = stop - history[LENGTHS]
    first = np.empty((len(windows), len(stop)), np.int64)
    for number, hours in enumerate(windows):
        first[number] = start
        if hours is not None:
            begin = cutoff - hours * MILLISECONDS_PER_HOUR
            first[number] = first_not_before(history["timestamp"], start, stop, begin)
    if num_actions == 1:
        return (stop - first)[..., None].astype(np.int32)
    found = np.empty((*first.shape, num_actions), np.int32)
    for code in range(num_actions):
        events = np.flatnonzero(action == code)
        found[..., code] = np.searchsorted(events, stop) - np.searchsorted(events, first)
    return found


class _Windows:
    """Windows that end at a cutoff, each within the longer ones."""

    def __init__(self, windows: Sequence[int | None]) -> None:
        finite = sorted({hours for hours in windows if hours is not None})
        self._edges = [hours * MILLISECONDS_PER_HOUR for hours in finite]
        self._last_bucket = [
            len(finite) if hours is None else finite.index(hours) for hours in windows
        ]

    def counts(
        self, cell: NDArray[np.int64], age: NDArray[np.int64], cells: int
    ) -> NDArray[np.int32]:
        """[W, cells] how many of each cell are in each window, of [n] cells and ages in ms."""
        place = cell.copy()
        for edge in self._edges:
            place += (age > edge) * cells
        buckets = len(self._edges) + 1
        found = np.bincount(place, minlength=cells * buckets).reshape(buckets, cells)
        return found.cumsum(axis=0, dtype=np.int32)[self._last_bucket]


def matches(
    of_events: NDArray[np.integer],
    owner: NDArray[np.int32],
    request: NDArray[np.int64],
    ids: NDArray[np.integer],
    size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which events share an index with which candidates.

    Candidates of a request with the same index are counted once, at one of them.

    Args:
        of_events: [E] the indices of events.
        owner: [E] their requests, ascending.
        request: [R] the requests of the candidates, ascending.
        ids: [R] the indices of the candidates.
        size: number of indices.

    Returns:
        slot [R], the row each candidate is counted at; and of each match its row and event.
    """
    # the indices asked about are numbered from 1, so that a table of them by request is small
    is_asked = np.zeros(size, bool)
    is_asked[ids] = True
    is_asked[0] = False
    asked = np.flatnonzero(is_asked)
    number_of = np.zeros(size, np.int32)
    number_of[asked] = np.arange(1, len(asked) + 1)
    number = number_of[ids]  # [R], 0 for the unknown index
    slot = np.arange(len(ids))
    rows, events = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    block = max(_TABLE_ENTRIES // (len(asked) + 1), 1)
    requests = int(request[-1]) + 1 if len(request) else 0
    for first in range(0, requests, block):
        last = min(first + block, requests)
        start_row, stop_row = np.searchsorted(request, [first, last]).tolist()
        start_event, stop_event = np.searchsorted(owner, [first, last]).tolist()
        of_rows = slice(start_row, stop_row)
        row_of = np.zeros((last - first, len(asked) + 1), np.int32)  # 1 + the row of the block
        row_of[request[of_rows] - first, number[of_rows]] = np.arange(1, stop_row - start_row + 1)
        slot[of_rows] = start_row - 1 + row_of[request[of_rows] - first, number[of_rows]]
        row_of[:, 0] = 0  # what is not known is shared with nobody
        entry = number_of.take(of_events[start_event:stop_event])
        entry += (owner[start_event:stop_event] - np.int32(first)) * np.int32(len(asked) + 1)
        found = row_of.ravel().take(entry)
        shared = np.flatnonzero(found > 0)  # of booleans, which numpy finds ten times faster
        events.append(start_event + shared)
        rows.append(start_row - 1 + found.take(shared).astype(np.int64))
    return slot, np.concatenate(rows), np.concatenate(events)
