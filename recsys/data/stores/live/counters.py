"""Counters of a data set and what has come since, as one.

Legend: R questions, W windows, A action types, N counts, H hours in which something happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.data.contract.actions import ActionTypes
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.counters.build import ENTITIES, EVERYTHING
from recsys.data.stores.counters.store import RunningSums
from recsys.data.stores.dataset import Counters
from recsys.data.stores.live.events import LiveEvents
from recsys.data.stores.live.journal import Position

#: An index (31 bits), an hour (22: until 2448) and a column as one number.
_HOUR_BITS, _COLUMN_BITS = 22, 7
_HOUR, _COLUMN = (1 << _HOUR_BITS) - 1, (1 << _COLUMN_BITS) - 1
#: Later than every hour.
_NEVER = 1 << _HOUR_BITS
#: Events that wait at most, so that whoever asks first after an hour has little to add up.
_MOST_WAITING = 4096


class _Counted:
    """Counts of one entity.

    Args:
        keys: [N] ascending, each once.
        numbers: [N] events of each.
        actions: A.
    """

    def __init__(self, keys: NDArray[np.int64], numbers: NDArray[np.int64], actions: int) -> None:
        self.keys = keys
        self.numbers = numbers
        bucket = keys >> _COLUMN_BITS
        is_first = np.append(True, np.diff(bucket) != 0)
        hours = bucket[is_first] & _HOUR
        counts = np.zeros((len(hours) + 1, actions), np.int64)
        counts[np.cumsum(is_first), keys & _COLUMN] = numbers
        self._index, start = np.unique(bucket[is_first] >> _HOUR_BITS, return_index=True)
        self._offsets = np.append(start, len(hours))
        total = counts.cumsum(axis=0)
        running = total[1:] - np.repeat(total[start], np.diff(self._offsets), axis=0)
        self._sums = RunningSums(hours.astype(np.int32), running)

    def within(
        self, index: NDArray[np.int64], hour: NDArray[np.int64], windows: Sequence[int | None]
    ) -> NDArray[np.int64]:
        """[W, R, A] the counts of indices [R] in the hours before some [R]."""
        place = np.searchsorted(self._index, index)
        known = place < len(self._index)
        known[known] = self._index[place[known]] == index[known]
        start, end = np.zeros((2, len(index)), np.int64)
        start[known] = self._offsets[place[known]]
        end[known] = self._offsets[place[known] + 1]
        return self._sums.within(start, end, hour, windows)


class LiveCounters:
    """A counter store that counts live events as well, each once its hour is over.

    It gives what a store gives that was built of the same events, and counts those of unknown users
    too, who are somebody once days are appended. An action that no event of the data set has is not
    counted: the columns stay those that models were trained with.

    Args:
        stored: counters of the data set.
        live: what has come since.
        actions: of the data set.

    Attributes:
        actions: the action types that are counted, impressions first.
    """

    def __init__(self, stored: Counters, live: LiveEvents, actions: ActionTypes) -> None:
        self.actions = stored.actions
        self._stored = stored
        self._live = live
        self._types = actions
        self._column_of = np.full(len(actions.names), -1)
        self._column_of[[actions.names.index(name) for name in stored.actions]] = np.arange(
            len(stored.actions)
        )
        self._lock = Lock()
        self._position = Position()
        self._counted: dict[str, tuple[_Counted, ...]] = dict.fromkeys(ENTITIES, ())
        self._waiting: list[NDArray] = []
        self._num_waiting = 0
        self._first = _NEVER  # hour of those that wait

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open the stores again in the process that unpickles them."""
        return type(self), (self._stored, self._live, self._types)

    def counts(
        self, entity: str, index: ArrayLike, before: ArrayLike, windows: Sequence[int | None]
    ) -> NDArray[np.int64]:
        """Events in the whole hours before some moments, as :meth:`CounterStore.counts`."""
        index = np.asarray(index, np.int64)
        hour = np.asarray(before, np.int64) // MILLISECONDS_PER_HOUR
        found = self._stored.counts(entity, index, before, windows)
        for counted in self._until(int(hour.max(initial=0)))[entity]:
            found += counted.within(index, hour, windows)
        return found

    def _until(self, hour: int) -> dict[str, tuple[_Counted, ...]]:
        """What is counted, events before an hour among it; some of the current one may wait."""
        with self._lock:
            position, records = self._live.since(self._position)
            if position.epoch != self._position.epoch:
                self._counted = dict.fromkeys(ENTITIES, ())
                self._waiting, self._num_waiting, self._first = [], 0, _NEVER
            self._position = position
            if len(records):
                self._waiting.append(records)
                self._num_waiting += len(records)
                first = int(records["timestamp"].min()) // MILLISECONDS_PER_HOUR
                self._first = min(self._first, first)
            if self._first < hour or self._num_waiting > _MOST_WAITING:
                records = np.concatenate(self._waiting)
                for entity, counted in self._counted.items():
                    self._counted[entity] = self._with(counted, self._keys(entity, records))
                self._waiting, self._num_waiting, self._first = [], 0, _NEVER
            return dict(self._counted)

    def _with(self, counted: tuple[_Counted, ...], keys: NDArray[np.int64]) -> tuple[_Counted, ...]:
        """The counts, and one more of each of some keys [N]: each as large as two behind it."""
        if not len(keys):
            return counted
        kept = list(counted)
        keys, numbers = _added_up(keys, np.ones(len(keys), np.int64))
        while kept and len(kept[-1].keys) < 2 * len(keys):
            last = kept.pop()
            keys, numbers = _added_up(np.append(last.keys, keys), np.append(last.numbers, numbers))
        return (*kept, _Counted(keys, numbers, len(self.actions)))

    def _keys(self, entity: str, records: NDArray) -> NDArray[np.int64]:
        """[N] what each event adds one to."""
        index = np.zeros(len(records), np.int64) if entity == EVERYTHING else records[entity]
        column = self._column_of[records["action_type"]]
        counts = column >= 0
        if entity != EVERYTHING:
            counts &= index != 0
        hour = records["timestamp"] // MILLISECONDS_PER_HOUR
        keys = (index.astype(np.int64) << _HOUR_BITS | hour) << _COLUMN_BITS | column
        found: NDArray[np.int64] = keys[counts]
        return found


def _added_up(
    keys: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keys [N], at least one, each once and ascending, and the sum of its numbers."""
    order = np.argsort(keys, kind="stable")  # quick where two sorted parts come together
    keys = keys[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.add.reduceat(numbers[order], first)
