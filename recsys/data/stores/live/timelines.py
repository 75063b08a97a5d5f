"""Timelines of a data set and what has come since, as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.live.events import LiveEvents
from recsys.data.stores.timelines.store import Ranges, TimelineStore, ranges_in
from recsys.data.stores.vocabulary import UNKNOWN_INDEX


class LiveTimelines(TimelineStore):
    """A timeline store to which live events are appended as they come.

    It gives what a store gives to which the same events had been appended; but for the unknown
    user, whom many are: what they do while the store is open is nobody's history.
    """

    _live: LiveEvents

    @classmethod
    def of(cls, path: Path, live: LiveEvents) -> Self:
        """The timelines in a folder and live events.

        Raises:
            DataError: as :meth:`TimelineStore.open`.
        """
        timelines = cls.open(path)
        timelines._live = live
        return timelines

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open both again in the process that unpickles them."""
        return type(self).of, (self.path, self._live)

    def num_events(self, kind: TimelineKind) -> int:
        """Events of one timeline kind over all users, unknown ones as well."""
        return super().num_events(kind) + self._live.num_events(kind)

    def users(self) -> NDArray[np.int32]:
        """Every user that has an event, ascending."""
        live = [block.users for kind in TimelineKind for block in self._live.blocks(kind)]
        found = np.unique(np.concatenate([np.empty(0, np.int32), *live]))
        return np.union1d(super().users(), found[found != UNKNOWN_INDEX])

    def _ranges(
        self, users: NDArray[np.int32], before: NDArray[np.int64], kind: TimelineKind
    ) -> Iterator[Ranges]:
        yield from super()._ranges(users, before, kind)
        known = np.flatnonzero(users != UNKNOWN_INDEX)
        for block in self._live.blocks(kind):
            yield from ranges_in(block, users, before, known)
