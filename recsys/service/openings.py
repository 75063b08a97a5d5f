"""What users do with the app, and the lists that were made when they opened it, of all workers.

An LMDB that lies in the memory that its workers share; nothing waits for the disk, and a service
that is killed goes on from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.lmdb_folder import LmdbFolder, LmdbKind
from recsys.serving.funnel.prefetch.habits import Habits

_HABITS, _LISTS = b"app_habits", b"app_lists"
_KIND = LmdbKind(
    "store of lists in advance",
    (_HABITS, _LISTS),
    "a service that makes lists in advance makes one",
    "remove the folder: it fills again by itself",
    DataError,
)
_KEY = struct.Struct(">Q")
#: In front of a list: until when it may be shown, and the pairs that were scored for it.
_HEAD = struct.Struct(">qI")
#: Lists that are looked at in one sweep.
_SWEPT = 1_000
#: Of a device and a network that nobody knows.
_UNKNOWN = (float("nan"), float("nan"))


class Waiting(msgspec.Struct, frozen=True):
    """A list that waits for its user.

    Attributes:
        made: when it was, ms.
        until: it may be shown, ms.
        pairs: that were scored for it.
        k: its places.
        where: generation and operating point that made it.
        context: that it was made for.
        body: what became of its candidates, as ``encoded`` of the ledger.
    """

    made: int
    until: int
    pairs: int
    k: int
    where: str
    context: dict[str, str | int | float]
    body: bytes


class Openings:
    """Habits of users, by index, and lists.

    Args:
        path: the folder; made where it is absent.

    Raises:
        DataError: the folder holds something else, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._folder = LmdbFolder(path, _KIND, durable=False)
        self._swept = -1

    def opened(
        self,
        user: int,
        moment: int,
        engaged: NDArray[np.int64],
        notified: bool,
        kinds: tuple[float, float] = _UNKNOWN,
        waited_ms: float | None = None,
    ) -> NDArray[np.float32]:
        """Count that a user has opened the app; [1, F] what was known at that moment.

        Args:
            user: index.
            moment: ms.
            engaged: [n] when the user has engaged with items before, ms.
            notified: whether a notification is shown.
            kinds: device and network by number.
            waited_ms: for the list of the last visit, if it was made then.
        """
        with (
            self._folder.transaction(write=True) as transaction,
            self._counting(transaction, user, kinds) as (habits, at),
        ):
            habits.engaged_until(at, moment, engaged)
            if waited_ms is not None:
                habits.waited(at, np.array([moment]), np.array([waited_ms]))
            found = habits.features(at, np.array([moment]), np.array([notified]))
            habits.opened(at, np.array([moment]))
        return found

    def visited(
        self, user: int, moment: int, k: int, where: str, context: dict[str, str | int | float]
    ) -> Waiting | None:
        """Count a visit; the list that waits for it, which nobody else gets any more.

        Raises:
            DataError: it is damaged.
        """
        key, lists = _KEY.pack(user), self._folder.databases[_LISTS]
        with self._folder.transaction(write=True) as transaction:
            with self._counting(transaction, user) as (habits, at):
                habits.visited(at, np.array([moment]))
            content = transaction.get(key, db=lists)
            if content is None:
                return None
            found = self._decoded(content)
            fits = (found.where, found.context) == (where, context) and k <= found.k
            if not fits or not found.made <= moment <= found.until:
                return None
            transaction.delete(key, db=lists)
        return found

    def waits(self, user: int, moment: int, where: str) -> bool:
        """Whether a list is there that may still be shown.

        Raises:
            DataError: it is damaged.
        """
        with self._folder.transaction() as transaction:
            content = transaction.get(_KEY.pack(user), db=self._folder.databases[_LISTS])
        if content is None:
            return False
        found = self._decoded(content)
        return found.where == where and found.until >= moment

    def keep(self, user: int, waiting: Waiting) -> int | None:
        """Keep a list in the place of what the user had; the pairs of that one, None for none."""
        key, lists = _KEY.pack(user), self._folder.databases[_LISTS]
        content = _HEAD.pack(waiting.until, waiting.pairs) + msgspec.msgpack.encode(waiting)
        with self._folder.transaction(write=True) as transaction:
            former = transaction.get(key, db=lists)
            pairs = None if former is None else int(_HEAD.unpack_from(former)[1])
            transaction.put(key, content, db=lists)
        return pairs

    def expire(self, moment: int) -> list[int]:
        """Forget some of the lists that may not be shown any more; the pairs of each."""
        gone = []
        with (
            self._folder.transaction(write=True, buffers=True) as transaction,
            transaction.cursor(db=self._folder.databases[_LISTS]) as cursor,
        ):
            there = cursor.set_range(_KEY.pack(self._swept + 1))
            for _ in range(_SWEPT):
                if not there:
                    self._swept = -1
                    break
                self._swept = _KEY.unpack(cursor.key())[0]
                until, pairs = _HEAD.unpack_from(cursor.value())
                if until < moment:
                    gone.append(int(pairs))
                    there = cursor.delete() and bool(cursor.key())
                else:
                    there = cursor.next()
        return gone

    def close(self) -> None:
        """Close the LMDB."""
        self._folder.close()

    @contextmanager
    def _counting(
        self, transaction: lmdb.Transaction, user: int, kinds: tuple[float, float] = _UNKNOWN
    ) -> Iterator[tuple[Habits, NDArray[np.int64]]]:
        """The habits of one user, alone at place 0, which are kept when the block ends."""
        key, kept = _KEY.pack(user), self._folder.databases[_HABITS]
        habits = Habits(*(np.array([kind]) for kind in kinds))
        content = transaction.get(key, db=kept)
        if content is not None:
            try:
                habits.restore(np.frombuffer(content, np.float64)[None])
            except ValueError as error:
                raise self._folder.damaged(f"user {user}: {error}") from None
        yield habits, np.zeros(1, np.int64)
        transaction.put(key, habits.numbers().tobytes(), db=kept)

    def _decoded(self, content: bytes) -> Waiting:
        try:
            return msgspec.msgpack.decode(content[_HEAD.size :], type=Waiting)
        except msgspec.MsgspecError as error:
            raise self._folder.damaged(str(error)) from None
