"""What has happened since the last event of a prepared data set.

Legend: n events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import DataError
from recsys.data.contract.ids import as_ids
from recsys.data.contract.rejected import DUPLICATED_EVENT
from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live.announced import AnnouncedItems
from recsys.data.stores.live.blocks import SortedBlocks
from recsys.data.stores.live.items import ITEM, GrownDataset
from recsys.data.stores.live.journal import (
    AwayError,
    Journal,
    LmdbJournal,
    MemoryJournal,
    Pages,
    Position,
)
from recsys.data.stores.live.rows import GIVEN, LIVE_RECORD, EventRows
from recsys.data.stores.timelines.layout import Block, Events
from recsys.data.stores.timelines.writer import split_kinds
from recsys.data.stores.vocabulary import RAW


@dataclass(frozen=True)
class Reported:
    """What has come of events that were appended.

    Attributes:
        taken: how many are known from now on.
        set_aside: how many are not, by reason.
    """

    taken: int
    set_aside: dict[str, int]


class LiveEvents:
    """Events that came after a data set, in memory or shared by several processes.

    An event is known as soon as ``append`` has returned: to this process, and to all that have
    opened the same folder. There it is on the disk by then, so that it outlives whoever wrote it.
    Every process holds all events, about 40 bytes each. Several threads may use one.

    Args:
        dataset: the prepared data set, with items that came after it as far as they are known here.
        journal: where events are written down.
        announced: the items of the journal; None for those that it has now.
        stated: how many statements on items the data set knows.

    Attributes:
        announced: items of after the data set, those that others have announced meanwhile as well.
        later: how such items are noted; of those that the data set was opened with.
    """

    _position: Position
    _blocks: dict[TimelineKind, SortedBlocks]

    def __init__(
        self,
        dataset: PreparedDataset,
        journal: Journal | None = None,
        announced: AnnouncedItems | None = None,
        stated: int = 0,
    ) -> None:
        self._dataset, self._stated = dataset, stated
        self._journal: Journal = journal or MemoryJournal()
        self.announced = announced or AnnouncedItems(self._journal)
        self._rows = EventRows(dataset)
        self.later = self._rows.later
        self._lock = RLock()
        self._withdrawn = frozenset[str](), np.empty(0, np.int64)
        self._forget_all(0)
        self._refresh()

    @classmethod
    def open(cls, place: Path | str, dataset: PreparedDataset) -> Self:
        """The events in a folder of their own, which is made where it is absent, or in a Redis.

        Once in a process, and after it was forked off. A folder stays with a data set that grows:
        events that a new generation has are left out.

        Args:
            place: the folder, or an address such as ``redis://host:6379/0``, where they are kept
                by their data set.
            dataset: whose events they are.

        Raises:
            ConfigError: ``place`` is no address of Redis.
            DataError: the folder holds something else, is damaged, is of another data set, or has
                forgotten events that this generation of the data set does not have; or Redis does
                not answer.
        """
        journal: Journal
        if isinstance(place, str) and "://" in place:
            # redis-py, for those who have one
            from recsys.data.stores.live.redis_journal import RedisJournal

            journal = RedisJournal(place, dataset.manifest)
        else:
            journal = LmdbJournal(Path(place), dataset.manifest)
        announced = AnnouncedItems(journal)
        return cls._over(dataset, journal, announced)

    def seen_by(self, dataset: PreparedDataset) -> Self:
        """The same events, as another generation of the data set takes them; both go on.

        It has the items that were announced until now.

        Raises:
            DataError: it is another data set, or events that it does not have were forgotten.
        """
        self._journal.identify(dataset.manifest)
        self.announced.refresh()
        return self._over(dataset, self._journal, self.announced)

    @classmethod
    def _over(cls, dataset: PreparedDataset, journal: Journal, announced: AnnouncedItems) -> Self:
        grown, stated = announced.behind(dataset)
        return cls(grown, journal, announced, stated)

    @property
    def items(self) -> pl.DataFrame | None:
        """What came after the data set when this was opened; None for nothing."""
        return self._dataset.given_items if isinstance(self._dataset, GrownDataset) else None

    @property
    def is_behind(self) -> bool:
        """Whether items were announced, or anew, since this was opened; ``seen_by`` has them."""
        self.announced.refresh()
        return self.announced.stated > self._stated

    def withdrawn(self) -> NDArray[np.int64]:
        """Indices of the items that are not to be shown; another array once they are others."""
        self.announced.refresh()
        names, found = self._withdrawn
        if names is not self.announced.withdrawn:
            names = self.announced.withdrawn
            vocabulary = self._dataset.vocabulary(ITEM)
            text = pl.Series(RAW, sorted(names), pl.String())
            ids = as_ids(text, vocabulary.table.schema[RAW])
            found = vocabulary.indices(ids).cast(pl.Int64).to_numpy()
            self._withdrawn = names, found
        return found

    def append(self, events: Mapping[str, ArrayLike]) -> Reported:
        """Take in some events, in any order.

        An event that is there already, the same in all that its timeline holds, is not taken again:
        a caller that does not know whether a call was heard makes it again. What `recsys data
        append` would set aside is set aside here.

        Args:
            events: columns of a timeline and ``user``, [n] each. ``user``, ``item``, ``timestamp``
                (ms) and ``action_type`` (its code in the data set) are needed; an author or topic
                that is 0 or absent is the item's, other codes are 0 and numbers NaN where unknown.
                An item of after the data set is its index here, or ``LATER`` and its number. A
                user, item or code that the data set does not have is the unknown 0 to all readers,
                whatever has its index later: such an event is in the counters of what is
                known of it, its author say, and that of an unknown user in no history.

        Raises:
            DataError: a column is missing or unknown, or does not hold n numbers.
            RecsysError: it could not be written; none of the events was taken.
        """
        checked, set_aside = self._rows.checked(events)
        with self._lock, self._journal.writing() as pages:
            self._read(pages)
            fresh = checked[self._is_new(checked)]
            if len(fresh):
                pages.put(fresh)
        self._refresh()
        set_aside += Counter({DUPLICATED_EVENT: len(checked) - len(fresh)})
        return Reported(len(fresh), dict(+set_aside))

    def blocks(self, kind: TimelineKind) -> tuple[Block, ...]:
        """The events of a timeline kind by user and time, in blocks as of a timeline store.

        They hold what is known at this moment, and never change.
        """
        with self._lock:
            self._refresh()
            return self._blocks[kind].blocks

    def since(self, position: Position) -> tuple[Position, NDArray]:
        """Events that came after a position, or all where that is of another epoch.

        Returns:
            The position after them, and their records, [n] of ``LIVE_RECORD``.
        """
        with self._lock, suppress(AwayError), self._journal.reading() as pages:
            now = pages.position
            if now == position:
                return now, np.empty(0, LIVE_RECORD)
            begin = position.number if position.epoch == now.epoch else 0
            return now, self._rows.fitted(pages.after(begin))
        return position, np.empty(0, LIVE_RECORD)

    def num_events(self, kind: TimelineKind) -> int:
        """Events of one timeline kind over all users."""
        return sum(int(block.offsets[-1]) for block in self.blocks(kind))

    def forget(self, before: int) -> int:
        """Drop events that the data set has by now; returns how many.

        Others may still read an earlier generation, so those of the last hours are better kept.

        Args:
            before: ms; what is not earlier stays, and whatever the data set does not have.
        """
        before = min(before, self._rows.last + 1)
        return self._rewrite(lambda events: events["timestamp"] >= before, before)

    def delete_users(self, users: Collection[int]) -> int:
        """Remove users' events for good; returns how many.

        Pages of an LMDB that were freed keep their bytes until they are used again.
        """
        doomed = np.fromiter(users, np.int64, len(users))
        return self._rewrite(lambda events: ~np.isin(events["user"], doomed), 0)

    def close(self) -> None:
        """Let the folder be opened again by this process."""
        self._journal.close()

    def __reduce__(self) -> tuple[object, tuple[Any, ...]]:
        """Open the folder again in the process that unpickles it."""
        if self._journal.path is None:
            raise DataError(
                "live events in memory cannot be handed to another process; keep them in a folder "
                "(LiveEvents.open), which all of them open."
            )
        stored = PreparedDataset.open(self._dataset.path)
        return type(self).open, (self._journal.path, stored)

    def _rewrite(self, keep: Callable[[NDArray], NDArray[np.bool_]], forgotten: int) -> int:
        with self._lock, self._journal.writing() as pages:
            removed = pages.rewrite(keep, forgotten)
        self._refresh()
        return removed

    def _refresh(self) -> None:
        """Take in what others have appended, where the journal can be reached."""
        with self._lock, suppress(AwayError), self._journal.reading() as pages:
            self._read(pages)

    def _read(self, pages: Pages) -> None:
        now = pages.position
        if now == self._position:
            return
        if now.epoch != self._position.epoch:
            self._forget_all(now.epoch)
        for kind, events in _by_kind(self._rows.fitted(pages.after(self._position.number))).items():
            self._blocks[kind].add(events)
        self._position = now

    def _forget_all(self, epoch: int) -> None:
        self._position = Position(epoch)
        self._blocks = {kind: SortedBlocks() for kind in TimelineKind}

    def _is_new(self, checked: NDArray) -> NDArray[np.bool_]:
        """[n] which of some events are neither known nor equal to one before them."""
        fitted = self._rows.fitted(checked)
        as_bytes = fitted.view(np.dtype((np.void, fitted.dtype.itemsize)))
        new = np.zeros(len(checked), bool)
        new[np.unique(as_bytes, return_index=True)[1]] = True
        implicit = checked["action_type"] == ACTION_TYPES.index(IMPRESSION)
        for kind, events in _by_kind(fitted).items():
            of_kind = implicit if kind is TimelineKind.IMPLICIT else ~implicit
            new[of_kind] &= ~self._blocks[kind].holds(events)
        return new


def _by_kind(fitted: NDArray) -> dict[TimelineKind, Events]:
    return split_kinds(fitted, GIVEN)
