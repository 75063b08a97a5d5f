"""Where live events and announced items are written down: in memory, or in an LMDB.

A journal is read and written within ``reading`` and ``writing``, of which the second is alone with
it. It has an *epoch*, another one whenever what was written before has been rewritten, and numbers
its batches; so a reader knows what it has read already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lmdb
import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.lmdb_folder import LmdbFolder, LmdbKind
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.live.written import (
    decoded_batch,
    decoded_identity,
    decoded_item,
    encoded_batch,
    encoded_identity,
    encoded_item,
    joined,
    refuse_others,
)

_STATE, _EVENTS, _ITEMS = b"live_state", b"live_events", b"live_items"
_KIND = LmdbKind(
    "store of live events",
    (_STATE, _EVENTS, _ITEMS),
    "the service that takes events makes one",
    "start again in a new folder, after `recsys data append` with the log of that time",
    DataError,
)
_IDENTITY, _POSITION = b"identity", b"position"
_NUMBERS = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")


class AwayError(DataError):
    """A journal that cannot be reached for now; what was read of it before stays known."""


@dataclass(frozen=True)
class Position:
    """How far a journal was read, or goes.

    Attributes:
        epoch: what was read of another epoch counts for nothing.
        number: of the last batch.
    """

    epoch: int = 0
    number: int = 0


class Pages(Protocol):
    """An open journal."""

    @property
    def position(self) -> Position:
        """Its last batch."""

    def after(self, number: int) -> NDArray:
        """[n] of ``EVENT_RECORD``, all events after a batch."""

    def put(self, records: NDArray) -> None:
        """Write a batch."""

    def rewrite(self, keep: Callable[[NDArray], NDArray[np.bool_]], forgotten: int) -> int:
        """Leave out the events that ``keep`` does not mark, for good; returns how many.

        Args:
            keep: from events [n] to [n].
            forgotten: moment in ms before which events may be missing now.
        """

    def announced(self, after: int) -> list[dict[str, Any]]:
        """What was stated of items after the first so many statements."""

    def announce(self, items: Sequence[dict[str, Any]]) -> None:
        """Write down statements behind those that are there; they are never left out."""


class Journal(Protocol):
    """Opens its pages to one who writes, and to those who read."""

    @property
    def path(self) -> Path | None:
        """The folder, where other processes can open it by that."""

    def identify(self, manifest: DatasetManifest) -> None:
        """Note a generation of the data set, if it is newer than those that are noted.

        Raises:
            DataError: it is another data set.
        """

    def close(self) -> None:
        """Let it be opened again by this process."""

    def reading(self) -> AbstractContextManager[Pages]:
        """The journal as it is at this moment."""

    def writing(self) -> AbstractContextManager[Pages]:
        """The journal, which nobody else writes to until the block ends."""


class MemoryJournal:
    """A journal of this process alone."""

    path = None

    def __init__(self) -> None:
        self._batches: list[NDArray] = []
        self._items: list[dict[str, Any]] = []
        self._epoch = 0

    @contextmanager
    def reading(self) -> Iterator[Pages]:
        """The journal itself; threads are kept apart by who has it."""
        yield self

    writing = reading

    @property
    def position(self) -> Position:
        """Its last batch."""
        return Position(self._epoch, len(self._batches))

    def after(self, number: int) -> NDArray:
        """[n] all events after a batch."""
        return joined(self._batches[number:])

    def put(self, records: NDArray) -> None:
        """Write a batch."""
        self._batches.append(records)

    def rewrite(self, keep: Callable[[NDArray], NDArray[np.bool_]], forgotten: int) -> int:
        """Leave events out; ``forgotten`` is for those who come later, whom there are none of."""
        former = joined(self._batches)
        kept = former[keep(former)]
        if removed := len(former) - len(kept):
            self._batches, self._epoch = [kept], self._epoch + 1
        return removed

    def announced(self, after: int) -> list[dict[str, Any]]:
        """The statements after the first so many."""
        return self._items[after:]

    def announce(self, items: Sequence[dict[str, Any]]) -> None:
        """Write down statements."""
        self._items += items

    def identify(self, manifest: DatasetManifest) -> None:
        """Whose events they are, this process knows."""

    def close(self) -> None:
        """Nothing is open."""


class LmdbJournal:
    """A journal that several processes share; a batch is on the disk when ``writing`` has ended.

    Args:
        path: a folder of its own; made where it is absent.
        manifest: of the data set whose events they are.

    Raises:
        DataError: the folder holds something else, is damaged, or is of another data set.
    """

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self._folder = LmdbFolder(path, _KIND)
        self._process = os.getpid()
        try:
            self.identify(manifest)
        except DataError:
            self._folder.close()
            raise

    def identify(self, manifest: DatasetManifest) -> None:
        """Note a generation of the data set, if it is newer than those that are noted.

        Raises:
            DataError: it is another data set.
        """
        with self._pages(write=True) as pages:
            pages.identify(manifest)

    @contextmanager
    def reading(self) -> Iterator[Pages]:
        """The journal as it is at this moment; it waits for nobody."""
        with self._pages(write=False) as pages:
            yield pages

    @contextmanager
    def writing(self) -> Iterator[Pages]:
        """The journal, which nobody else writes to until the block ends.

        Raises:
            RecsysError: the file system is full, or the file cannot be used.
        """
        with self._pages(write=True) as pages:
            yield pages

    def close(self) -> None:
        """Close the environment."""
        self._folder.close()

    @contextmanager
    def _pages(self, write: bool) -> Iterator[_LmdbPages]:
        if os.getpid() != self._process:
            raise DataError(
                f"The {_KIND.name} {self.path} was opened before this process was forked off; open "
                "it in each worker process."
            )
        with self._folder.transaction(write=write) as transaction:
            yield _LmdbPages(self._folder, transaction)


class _LmdbPages:
    def __init__(self, folder: LmdbFolder, transaction: lmdb.Transaction) -> None:
        self._folder = folder
        self._transaction = transaction
        self._state, self._events, self._items = (folder.databases[one] for one in _KIND.databases)

    @property
    def position(self) -> Position:
        content = self._transaction.get(_POSITION, db=self._state)
        if content is None:
            return Position()
        if len(content) != _NUMBERS.size:
            raise self._folder.damaged("its position is none")
        return Position(*_NUMBERS.unpack(content))

    def after(self, number: int) -> NDArray:
        batches, last = [], number
        with self._transaction.cursor(db=self._events) as cursor:
            found = cursor.set_range(_NUMBER.pack(number + 1))
            while found:
                following = int.from_bytes(cursor.key(), "big")
                batches.append(decoded_batch(following, cursor.value(), self._folder.damaged))
                if last and following != last + 1:
                    raise self._folder.damaged(f"batch {last + 1} is lost")
                last = following
                found = cursor.next()
        if last != self.position.number:
            raise self._folder.damaged(f"batch {self.position.number} is lost")
        return joined(batches)

    def put(self, records: NDArray) -> None:
        former = self.position
        key, content = _NUMBER.pack(former.number + 1), encoded_batch(former.number + 1, records)
        self._transaction.put(key, content, db=self._events)
        self._move(Position(former.epoch, former.number + 1))

    def rewrite(self, keep: Callable[[NDArray], NDArray[np.bool_]], forgotten: int) -> int:
        former = self.after(0)
        kept = former[keep(former)]
        if removed := len(former) - len(kept):
            self._transaction.drop(self._events, delete=False)
            identity = self._identity()
            if identity is not None and forgotten > identity["forgotten"]:
                self._identify(identity["lineage"], forgotten)
            at = self.position
            self._move(Position(at.epoch + 1, at.number))
            self.put(kept)
        return removed

    def announced(self, after: int) -> list[dict[str, Any]]:
        count = self._transaction.stat(self._items)["entries"]
        found = []
        for number in range(after, count):
            content = self._transaction.get(_NUMBER.pack(number), db=self._items)
            found.append(decoded_item(number, content or b"", self._folder.damaged))
        return found

    def announce(self, items: Sequence[dict[str, Any]]) -> None:
        first = self._transaction.stat(self._items)["entries"]
        for number, item in enumerate(items, first):
            self._transaction.put(_NUMBER.pack(number), encoded_item(item), db=self._items)

    def identify(self, manifest: DatasetManifest) -> None:
        """Compare whose events they are, and note the newest generation of the data set."""
        identity = self._identity()
        if identity is None:
            self._identify(manifest.lineage, 0)
        elif refuse_others(identity, manifest, self._folder.path):
            self._identify(manifest.lineage, identity["forgotten"])

    def _identity(self) -> dict[str, Any] | None:
        content = self._transaction.get(_IDENTITY, db=self._state)
        if content is None:
            return None
        return decoded_identity(content, self._folder.path, _KIND.mend, self._folder.damaged)

    def _identify(self, lineage: Sequence[str], forgotten: int) -> None:
        content = encoded_identity(lineage, forgotten)
        self._transaction.put(_IDENTITY, content, db=self._state)

    def _move(self, position: Position) -> None:
        content = _NUMBERS.pack(position.epoch, position.number)
        self._transaction.put(_POSITION, content, db=self._state)
