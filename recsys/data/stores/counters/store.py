"""How often items, authors and topics were shown and acted on before a moment, memory-mapped.

Legend: R questions, W windows, A action types, V indices of an entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.stores.counters.build import (
    ACTIONS,
    COUNTERS,
    COUNTS,
    ENTITIES,
    HOURS,
    OFFSETS,
    array_name,
    ensure_counters,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import map_arrays
from recsys.data.stores.timelines.store import first_not_before
from recsys.data.stores.vocabulary import UNKNOWN_INDEX


@dataclass(frozen=True, eq=False)
class RunningSums:
    """Hours in which something happened, those of an index side by side.

    Attributes:
        hours: [H] ascending for each index.
        counts: [H, A] what happened to the index until the end of the hour.
    """

    hours: NDArray[np.int32]
    counts: NDArray[np.integer]

    def within(
        self,
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        hour: NDArray[np.int64],
        windows: Sequence[int | None],
    ) -> NDArray[np.int64]:
        """[W, R, A] what happened in the hours before ``hour`` [R].

        Args:
            start: [R] where the hours of what is asked about begin.
            end: [R] and end.
            hour: [R] the first that is not counted.
            windows: W lengths in hours, None for all time before.
        """
        last = first_not_before(self.hours, start, end, hour)
        up_to_now = self._until(start, last)
        found = np.empty((len(windows), *up_to_now.shape), np.int64)
        for number, hours in enumerate(windows):
            found[number] = up_to_now
            if hours is not None:
                first = first_not_before(self.hours, start, last, hour - hours)
                found[number] -= self._until(start, first)
        return found

    def _until(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        """[R, A] the sums over the hours from ``start`` up to ``stop``."""
        sums = np.zeros((len(start), self.counts.shape[1]), np.int64)
        some = stop > start
        sums[some] = self.counts[stop[some] - 1]
        return sums


class CounterStore:
    """Running sums of a data set's events by entity and hour.

    An hour is counted once it is over: a question at 14:37 sees what happened before 14:00, and
    nothing of its own hour, for events of an hour are known together.

    Pickled to another process it is opened there again.

    Attributes:
        path: folder of the arrays, inside the prepared data set.
        actions: the action types that are counted, impressions first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        description = COUNTERS.read(path)
        arrays = map_arrays(path, description)
        self.actions: tuple[str, ...] = tuple(description.facts[ACTIONS])
        self._offsets = {entity: arrays[array_name(entity, OFFSETS)] for entity in ENTITIES}
        self._sums = {
            entity: RunningSums(*(arrays[array_name(entity, array)] for array in (HOURS, COUNTS)))
            for entity in ENTITIES
        }

    @classmethod
    def open(cls, dataset: PreparedDataset) -> Self:
        """Map the counters of a data set, building them first where they are absent.

        They are kept in ``counters/`` of the data set and built anew when the data set has grown,
        lost a user, or was prepared again. Of processes that want the same, one builds and the
        others wait.

        Raises:
            DataError: the data set was prepared anew since it was opened, or a file is damaged.
        """
        return cls(ensure_counters(dataset))

    def counts(
        self, entity: str, index: ArrayLike, before: ArrayLike, windows: Sequence[int | None]
    ) -> NDArray[np.int64]:
        """Events in the whole hours before some moments.

        Args:
            entity: ``item``, ``author`` or ``topic``, or ``everything`` with the index 0.
            index: [R] indices; the unknown index 0 of an id, one that nothing happened to, and one
                that came after the data set have counts of 0.
            before: [R] ms.
            windows: W lengths in hours, None for all time before.

        Returns:
            [W, R, A], the last axis as ``actions``.

        Example: a video shown at 10:05, 10:50 and 12:10 has, asked at 12:30, been shown twice in
        all time and in the last three hours, and not at all in the last hour, which is 11 to 12.
        """
        offsets = self._offsets[entity]
        index = np.asarray(index, np.int64)
        index = np.where(index < len(offsets) - 1, index, UNKNOWN_INDEX)
        hour = np.asarray(before, np.int64) // MILLISECONDS_PER_HOUR
        return self._sums[entity].within(offsets[index], offsets[index + 1], hour, windows)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Open the store again in the process that unpickles it."""
        return type(self), (self.path,)
