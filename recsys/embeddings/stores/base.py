"""What a store of published user embeddings promises, and the bytes it keeps.

Every record is kept under (user, version). A publication takes a fresh version, writes its records
in small transactions, and becomes visible when ``commit`` moves the one pointer ``current``: a
reader takes, for each user, the newest record whose version is not above ``current``. So a
publication of any size is seen whole or not at all, and an incremental one writes only the users
that changed. A journal of the keys each version wrote lets a publication that was killed be taken
back, and superseded records be dropped, without a walk over all users.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, DataError

#: A raw user id: an integer of 64 bits, with or without a sign, or a string.
UserId = int | str
#: In front of a record's rows: timestamp (ms), number of vectors N, integers per vector n.
HEADER = struct.Struct("<qii")
#: A record that says "this user has no embedding from this version on".
WITHDRAWN = b""
#: LMDB's keys end at 511 bytes; a kind, a length and a version stand beside the id.
LONGEST_STRING_ID = 480


@dataclass(frozen=True)
class Publication:
    """One committed update of the store.

    Attributes:
        version: grows from publication to publication; numbers of killed ones are not used again.
        timestamp: the moment it was computed for (``as_of``), ms.
        details: what made it (model, log, rule), kept as JSON.
    """

    version: int
    timestamp: int
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredEmbedding:
    """A user's embedding as published.

    Attributes:
        version: publication that wrote it.
        timestamp: the moment it was computed for, ms.
        rows: [N, n] int64, 4-bit rows; read them with ``recsys.embeddings.reader``.
    """

    version: int
    timestamp: int
    rows: NDArray[np.int64]


def encode_user(user: UserId) -> bytes:
    """The key of a user: integers and strings apart, and no key a prefix of another.

    Raises:
        DataError: a string id that is too long for a key.
    """
    if isinstance(user, str):
        encoded = user.encode()
        if len(encoded) > LONGEST_STRING_ID:
            raise DataError(
                f"The user id {user[:40]!r}… has {len(encoded)} bytes, a key of the embedding "
                f"store has room for {LONGEST_STRING_ID}; publish under shorter ids."
            )
        return b"s" + struct.pack(">H", len(encoded)) + encoded
    if user >= 1 << 63:
        return b"u" + struct.pack(">Q", user)
    return b"i" + struct.pack(">Q", user + (1 << 63))


def decode_user(key: bytes) -> UserId:
    """The reverse of :func:`encode_user`."""
    if key[:1] == b"s":
        return key[3:].decode()
    number = int.from_bytes(key[1:], "big")
    return number if key[:1] == b"u" else number - (1 << 63)


def encode_record(timestamp: int, rows: NDArray[np.int64]) -> bytes:
    """Header and rows [N, n] of one user."""
    return HEADER.pack(timestamp, *rows.shape) + np.ascontiguousarray(rows, dtype="<i8").tobytes()


def decode_record(version: int, record: bytes) -> StoredEmbedding | None:
    """The reverse of :func:`encode_record`; None for a withdrawn user."""
    if record == WITHDRAWN:
        return None
    timestamp, vectors, integers = HEADER.unpack_from(record)
    rows = np.frombuffer(record, dtype="<i8", offset=HEADER.size).reshape(vectors, integers)
    return StoredEmbedding(version, timestamp, rows)


class EmbeddingStore(ABC):
    """Reads and publishes user embeddings; one publisher at a time, any number of readers.

    Publishing is ``begin``, any number of ``put_many`` and ``withdraw_many``, ``commit`` and
    ``prune``. Whoever calls ``begin`` last is the publisher: an older one fails at its next write.
    """

    def __init__(self) -> None:
        self._open: Publication | None = None

    def get(self, user: UserId) -> StoredEmbedding | None:
        """The user's embedding in the current publication, or None."""
        return self.get_many([user])[0]

    def get_many(self, users: Sequence[UserId]) -> list[StoredEmbedding | None]:
        """The embeddings of several users, all from one state of the store."""
        found = self._read([encode_user(user) for user in users])
        return [None if entry is None else decode_record(*entry) for entry in found]

    def users(self) -> Iterator[UserId]:
        """Every user with a record, also a superseded or withdrawn one; a walk over all of them."""
        return map(decode_user, self._keys())

    def begin(self, timestamp: int, details: dict[str, Any]) -> Publication:
        """Start a publication; take back what an unfinished one has written.

        Users deleted from now on stay deleted, even if the publication still writes them.
        """
        self._open = Publication(self._take_version(), timestamp, details)
        return self._open

    def put_many(self, users: Sequence[UserId], rows: NDArray[np.int64]) -> None:
        """Write embeddings, invisible until ``commit``.

        Args:
            users: raw ids of U users.
            rows: [U, N, n] int64.

        Raises:
            ArtifactError: another publication has begun since.
        """
        timestamp = self._publication().timestamp
        self._write(
            [
                (encode_user(user), encode_record(timestamp, user_rows))
                for user, user_rows in zip(users, rows, strict=True)
            ]
        )

    def withdraw_many(self, users: Sequence[UserId]) -> int:
        """Say that users have no embedding any more, from ``commit`` on.

        Returns:
            How many of them had one; nothing is written for the others.
        """
        had = [user for user, found in zip(users, self.get_many(users), strict=True) if found]
        self._write([(encode_user(user), WITHDRAWN) for user in had])
        return len(had)

    def commit(self) -> Publication:
        """Make the publication visible, in one step.

        Raises:
            ArtifactError: another publication has begun since.
        """
        publication = self._publication()
        self._flip(publication)
        self._open = None
        return publication

    def abandon(self) -> None:
        """Take back what the open publication has written, as the next ``begin`` would.

        Raises:
            RecsysError: there is no room even for that.
        """
        if self._open is not None:
            self._take_back(self._open.version)
            self._open = None

    def delete(self, user: UserId) -> None:
        """Remove every trace of a user, at once and from an open publication as well."""
        self._delete(encode_user(user))

    def _publication(self) -> Publication:
        if self._open is None:
            raise ArtifactError("Nothing can be written to the embedding store before begin().")
        return self._open

    def _superseded(self) -> ArtifactError:
        return ArtifactError(
            f"Another publication has begun while version {self._publication().version} was being "
            "written; this one stops and changes nothing. Let one publication run at a time."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def current(self) -> Publication | None:
        """The publication readers see, or None in a new store."""

    @abstractmethod
    def prune(self) -> int:
        """Drop records that the current publication has superseded; how many were dropped."""

    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes the store takes (on disk for LMDB, in memory for Redis)."""

    @abstractmethod
    def close(self) -> None:
        """Give back files or connections."""

    @abstractmethod
    def _read(self, keys: Sequence[bytes]) -> list[tuple[int, bytes] | None]:
        """Per key its newest (version, record) not above ``current``, all from one state."""

    @abstractmethod
    def _keys(self) -> Iterator[bytes]:
        """The key of every user with a record, each once."""

    @abstractmethod
    def _take_version(self) -> int:
        """Become the publisher: a fresh version, after unfinished ones are taken back."""

    @abstractmethod
    def _take_back(self, version: int) -> None:
        """Remove the records of a publication that was not committed."""

    @abstractmethod
    def _write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write records of the open publication, except those of users deleted meanwhile."""

    @abstractmethod
    def _flip(self, publication: Publication) -> None:
        """Point ``current`` to the open publication."""

    @abstractmethod
    def _delete(self, key: bytes) -> None:
        """Remove every record of a user and every mention in the journal."""
