"""Where a FeedState keeps its users: in this process's memory, or in an LMDB.

Legend: n items of a user, K tasks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lmdb
import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.json_files import decode_json, encode_json
from recsys.core.lmdb_folder import LmdbFolder, LmdbKind

#: What changes with time, as it was when an item was scored: engagements of all users with the item
#: of late, and what is counted of the user's affinity to it.
COUNTERS = ("engagements", "affinity")

_USERS, _STATE = b"feed_users", b"feed_state"
_KIND = LmdbKind(
    "FeedState",
    (_USERS, _STATE),
    "a service with a cache makes one",
    "remove the folder: it fills again by itself",
    DataError,
)
_IDENTITY, _IDENTITY_KIND = b"identity", "identity of a FeedState"
_KEY = struct.Struct(">Q")
_HEAD = struct.Struct(">IQq")  # checksum, generation, newest


def row_type(tasks: int) -> np.dtype[np.void]:
    """What is kept of an item: its place in the user's last list (0 for none), when it was scored
    (ms), the scores [K], and the counters as of then.
    """
    return np.dtype(
        [
            ("item", "<i4"),
            ("place", "<i4"),
            ("moment", "<i8"),
            ("scores", "<f4", (tasks,)),
            ("counters", "<f4", (len(COUNTERS),)),
        ]
    )


@dataclass(frozen=True, eq=False)
class Record:
    """What is kept of a user.

    Attributes:
        generation: of what has scored; a number that stands for it.
        newest: moment of the last request, ms.
        rows: [n] of a ``row_type``, the ones scored last first.
    """

    generation: int
    newest: int
    rows: NDArray[np.void]


class Store(Protocol):
    """Keeps a record of each user."""

    def get(self, user: int) -> Record | None:
        """What was last put."""
        ...

    def put(self, user: int, record: Record) -> None:
        """Keep this of the user, and nothing else."""
        ...

    def expire(self, before: int) -> None:
        """Forget users who have not come since a moment (ms), some at a time."""
        ...

    def close(self) -> None:
        """Write what is not written yet."""
        ...


class MemoryStore:
    """A store of this process alone."""

    def __init__(self) -> None:
        self._records: dict[int, Record] = {}  # those put last at the end

    def __len__(self) -> int:
        return len(self._records)

    def get(self, user: int) -> Record | None:
        """What was last put."""
        return self._records.get(user)

    def put(self, user: int, record: Record) -> None:
        """Keep it."""
        self._records.pop(user, None)
        self._records[user] = record

    def expire(self, before: int) -> None:
        """Forget the users who came first, until one has come since."""
        while self._records:
            user = next(iter(self._records))
            if self._records[user].newest >= before:
                break
            del self._records[user]

    def close(self) -> None:
        """Nothing is open."""


class LmdbStore:
    """A store in a folder, which several processes of one machine share.

    What is put waits in memory until so many users wait, or until ``close``: a process that is
    killed loses those, and other processes do not see them before. The last one to write a user
    wins.

    Args:
        path: a folder of its own; made where it is absent.
        tasks: K names, in the order of the scores.
        waiting: users.

    Raises:
        DataError: the folder holds something else, is damaged, or has other columns or tasks.
    """

    def __init__(self, path: Path, tasks: Sequence[str], waiting: int = 256) -> None:
        self._type, self._limit = row_type(len(tasks)), waiting
        self._waiting: dict[int, Record] = {}
        self._before, self._swept = 0, -1
        self._folder = LmdbFolder(path, _KIND)
        try:
            self._identify([list(map(str, one)) for one in self._type.descr], list(tasks))
        except DataError:
            self._folder.close()
            raise

    def get(self, user: int) -> Record | None:
        """What was last put.

        Raises:
            DataError: it is damaged.
        """
        if (found := self._waiting.get(user)) is not None:
            return found
        key = _KEY.pack(user)
        with self._folder.transaction() as transaction:
            content = transaction.get(key, db=self._folder.databases[_USERS])
        return None if content is None else self._decoded(key, content)

    def put(self, user: int, record: Record) -> None:
        """Keep it; on the disk with the others that wait.

        Raises:
            RecsysError: the file system is full, or the file cannot be used.
        """
        self._waiting[user] = record
        if len(self._waiting) >= self._limit:
            self.flush()

    def expire(self, before: int) -> None:
        """Forget some of them with the next write."""
        self._before = before

    def flush(self) -> None:
        """Write what waits; what could not be written is given up."""
        waiting, self._waiting = self._waiting, {}
        with self._folder.transaction(write=True) as transaction:
            for user, record in waiting.items():
                payload = record.rows.tobytes()
                head = _HEAD.pack(0, record.generation, record.newest)[4:]
                key = _KEY.pack(user)
                content = _checksum(key, head + payload) + head + payload
                transaction.put(key, content, db=self._folder.databases[_USERS])
            self._sweep(transaction, 2 * len(waiting))

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._waiting:
            self.flush()
        self._folder.close()

    def _sweep(self, transaction: lmdb.Transaction, number: int) -> None:
        """Look at the next so many users, and go on from there another time."""
        with transaction.cursor(db=self._folder.databases[_USERS]) as cursor:
            cursor.set_range(_KEY.pack(self._swept + 1))
            for _ in range(number):
                if not cursor.key():
                    self._swept = -1
                    break
                self._swept = _KEY.unpack(cursor.key())[0]
                if self._decoded(cursor.key(), cursor.value()).newest < self._before:
                    cursor.delete()  # and stand at the next one
                else:
                    cursor.next()

    def _decoded(self, key: bytes, content: bytes) -> Record:
        sound = len(content) >= _HEAD.size and content[:4] == _checksum(key, content[4:])
        if not sound or (len(content) - _HEAD.size) % self._type.itemsize:
            raise self._folder.damaged(f"user {_KEY.unpack(key)[0]} is not what was written")
        _, generation, newest = _HEAD.unpack_from(content)
        return Record(generation, newest, np.frombuffer(content, self._type, offset=_HEAD.size))

    def _identify(self, columns: list[Any], tasks: list[str]) -> None:
        """Compare what is kept with what was kept."""
        state, ours = self._folder.databases[_STATE], {"columns": columns, "tasks": tasks}
        with self._folder.transaction(write=True) as transaction:
            content = transaction.get(_IDENTITY, db=state)
            if content is None:
                transaction.put(_IDENTITY, encode_json(_IDENTITY_KIND, ours), db=state)
                return
        try:
            there = decode_json(_IDENTITY_KIND, content)
        except ValueError as problem:
            raise self._folder.damaged(str(problem)) from None
        if there != ours:
            raise DataError(
                f"{self._folder.path} keeps scores of {', '.join(there['tasks'])} as another "
                f"release or another value model wrote them, and not those of {', '.join(tasks)}; "
                f"give another folder, or {_KIND.mend}."
            )


def _checksum(key: bytes, content: bytes) -> bytes:
    return zlib.crc32(content, zlib.crc32(key)).to_bytes(4, "big")
