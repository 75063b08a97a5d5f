"""What a store of published user embeddings promises, and the bytes it keeps.

Every record is kept under (user, version). A publication takes a fresh version, writes its records
in small transactions, and becomes visible when ``commit`` moves the one pointer ``current``: a
reader takes, for each user, the newest record whose version is not above ``current``. So a
publication of any size is seen whole or not at all, and an incremental one writes only the users
that changed. A journal of the keys each version wrote lets a publication that was killed be taken
back, and superseded records be dropped, without a walk over all users.

A record has a checksum of itself, its user and its version, so that a reader is never given a
damaged embedding or another user's.
"""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, DataError
from recsys.core.json_files import decode_json, encode_json

#: A raw user id: an integer of 64 bits, with or without a sign, or a string.
UserId = int | str
#: In front of a record's rows: timestamp (ms), number of vectors N and integers per vector n, then
#: the checksum; the rows lie at a multiple of 8 bytes.
_HEAD, _CHECKSUM = struct.Struct("<qii"), struct.Struct("<I4x")
_HEADER_BYTES = _HEAD.size + _CHECKSUM.size
#: A record this long has no rows: it says "this user has no embedding from this version on".
WITHDRAWN_BYTES = _HEADER_BYTES
#: Of what a store keeps about its publication, as JSON.
PUBLICATION = "publication of embeddings"
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


def encode_record(
    key: bytes, version: int, timestamp: int, rows: NDArray[np.int64] | None
) -> bytes:
    """Header and rows of one user.

    Args:
        key: of the user.
        version: of the publication.
        timestamp: of the publication, ms.
        rows: [N, n]; None for a user who has no embedding any more.
    """
    vectors, integers = (0, 0) if rows is None else rows.shape
    content = b"" if rows is None else np.ascontiguousarray(rows, dtype="<i8").tobytes()
    head = _HEAD.pack(timestamp, vectors, integers)
    return head + _CHECKSUM.pack(_record_checksum(key, version, head, content)) + content


def decode_record(key: bytes, version: int, record: bytes | memoryview) -> StoredEmbedding | None:
    """The reverse of :func:`encode_record`; None for a withdrawn user.

    Raises:
        ArtifactError: it is not what was written for this user in this version.
    """
    if len(record) >= _HEADER_BYTES:
        timestamp, vectors, integers = _HEAD.unpack_from(record)
        # the length first: a damaged one may lead out of the file that the record is mapped from
        if len(record) == _HEADER_BYTES + 8 * vectors * integers:
            head, content = bytes(record[: _HEAD.size]), bytes(record[_HEADER_BYTES:])
            expected = _record_checksum(key, version, head, content)
            if _CHECKSUM.unpack_from(record, _HEAD.size) == (expected,):
                rows = np.frombuffer(content, dtype="<i8").reshape(vectors, integers)
                return StoredEmbedding(version, timestamp, rows) if content else None
    raise ArtifactError(
        f"The record of a user in version {version} of the embedding store is damaged (its "
        "checksum is not that of its content); publish again with only_changed=false, into a new "
        "store where that does not help."
    )


def _record_checksum(key: bytes, version: int, head: bytes, content: bytes) -> int:
    """CRC-32 of a record, its user and its version."""
    return zlib.crc32(content, zlib.crc32(key + struct.pack(">Q", version) + head))


def encode_publication(publication: Publication) -> bytes:
    """What a store keeps about the publication that readers see."""
    return encode_json(PUBLICATION, asdict(publication))


def decode_publication(content: bytes | memoryview | None, place: str) -> Publication | None:
    """The reverse of :func:`encode_publication`; None where there is none.

    Args:
        content: what the store has kept.
        place: the store, for the sentence.

    Raises:
        ArtifactError: it is damaged.
    """
    if content is None:
        return None
    try:
        return Publication(**decode_json(PUBLICATION, bytes(content)))
    except ValueError as error:
        raise ArtifactError(
            f"What the embedding store {place} says of its publication is damaged, or of an "
            f"earlier release ({error}); publish into a new store."
        ) from error


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
        """The embeddings of several users, all from one state of the store.

        Raises:
            ArtifactError: what the store keeps of one of them is damaged.
        """
        return self._read([encode_user(user) for user in users])

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
        keys = [encode_user(user) for user in users]
        self._write([self._record(key, one) for key, one in zip(keys, rows, strict=True)])

    def withdraw_many(self, users: Sequence[UserId]) -> int:
        """Say that users have no embedding any more, from ``commit`` on.

        Returns:
            How many of them had one; nothing is written for the others.
        """
        had = [user for user, found in zip(users, self.get_many(users), strict=True) if found]
        self._write([self._record(encode_user(user), None) for user in had])
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

    def _record(self, key: bytes, rows: NDArray[np.int64] | None) -> tuple[bytes, bytes]:
        publication = self._publication()
        return key, encode_record(key, publication.version, publication.timestamp, rows)

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
    def check(self) -> int:
        """Read every record and compare its checksum; returns how many there are.

        Raises:
            ArtifactError: one is damaged or lost.
        """

    @abstractmethod
    def _read(self, keys: Sequence[bytes]) -> list[StoredEmbedding | None]:
        """Per key its newest record not above ``current``, all from one state."""

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
