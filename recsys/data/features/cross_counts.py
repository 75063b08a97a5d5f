"""How often and how lately a user dealt with a candidate's item, author and topic.

Legend: B requests, R rows (candidates over all requests), E events, W windows, A action types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import LENGTHS, MILLISECONDS_PER_HOUR

#: Age of what never happened, in hours.
NEVER = np.inf


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
    age = np.repeat(cutoff, history[LENGTHS]) - history["timestamp"]  # [E] ms, above 0
    counts, hours = {}, {}
    for name, ids in candidates.ids.items():
        slot, row, event = _matches(history, name, candidates, ids, sizes[name])
        acted = action[event].astype(np.int64)
        cell = row * num_actions + acted
        rows, cells = len(ids), len(ids) * num_actions
        found = np.empty((len(windows), rows, num_actions), np.int32)
        for number, window in enumerate(windows):
            inside = cell
            if window is not None:
                inside = cell[age[event] <= window * MILLISECONDS_PER_HOUR]
            found[number] = np.bincount(inside, minlength=cells).reshape(rows, num_actions)
        last = np.full(cells, NEVER, np.float32)
        # a request's events are oldest first, and of several assignments the last one stays
        last[cell] = age[event] / MILLISECONDS_PER_HOUR
        counts[name] = found[:, slot]
        hours[name] = last.reshape(rows, num_actions)[slot]
    return CrossCounts(counts, hours)


def _matches(
    history: Mapping[str, NDArray],
    name: str,
    candidates: Candidates,
    ids: NDArray[np.integer],
    size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which events share an index with which candidates.

    Candidates of a request with the same index are counted once, at one of them.

    Returns:
        slot [R], the row each candidate is counted at; and of each match its row and event.
    """
    last_event = np.cumsum(history[LENGTHS])
    last_row = np.cumsum(candidates.rows_per_request)
    slot = np.arange(len(ids))
    slot_of = np.zeros(size, np.int32)  # of the request at hand, 1 + its slot among the request's
    rows, events = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    column = history[name]
    first_event = first_row = 0
    for stop_event, stop_row in zip(last_event.tolist(), last_row.tolist(), strict=True):
        asked = ids[first_row:stop_row]
        slot_of[asked] = np.arange(1, len(asked) + 1)
        slot[first_row:stop_row] = first_row + slot_of[asked] - 1
        slot_of[0] = 0
        found = slot_of[column[first_event:stop_event]]
        hit = np.flatnonzero(found)
        if len(hit):
            events.append(first_event + hit)
            rows.append(first_row - 1 + found[hit].astype(np.int64))
        slot_of[asked] = 0
        first_event, first_row = stop_event, stop_row
    return slot, np.concatenate(rows), np.concatenate(events)
