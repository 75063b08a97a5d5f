"""The embedding store in LMDB: one folder, memory-mapped, read by any number of processes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lmdb

from recsys.core.errors import ArtifactError
from recsys.core.lmdb_folder import LmdbFolder, LmdbKind
from recsys.embeddings.stores.base import (
    WITHDRAWN_BYTES,
    EmbeddingStore,
    Publication,
    StoredEmbedding,
    decode_publication,
    decode_record,
    encode_publication,
)

#: Journal entries handled in one transaction, so that no transaction grows with the store.
ENTRIES_PER_TRANSACTION = 4096

CURRENT, OPEN_VERSION, NEXT_VERSION = b"current", b"open_version", b"next_version"
_KIND = LmdbKind(
    "embedding store",
    (b"state", b"records", b"journal", b"deleted"),
    "make one with `recsys publish`",
    "publish into a new store",
    ArtifactError,
)
LARGEST_VERSION = (1 << 64) - 1


def _version_bytes(version: int) -> bytes:
    return struct.pack(">Q", version)


def _newest_first(version: int) -> bytes:
    """Sorts later versions first, so that one seek finds the newest not above a version."""
    return struct.pack(">Q", LARGEST_VERSION - version)


class LmdbStore(EmbeddingStore):
    """An LMDB environment with four sub-databases.

    ``state``: the current publication, the open version and the next one. ``records``: user,
    version (newest first) → record. ``journal``: version, user → nothing. ``deleted``: users
    deleted while a publication is open.

    Args:
        path: the folder; created unless ``readonly``.
        readonly: for readers; they never wait for the publisher.

    Raises:
        ArtifactError: the folder is no store or cannot be opened.
    """

    def __init__(self, path: str | Path, readonly: bool = False) -> None:
        super().__init__()
        self._folder = LmdbFolder(Path(path), _KIND, readonly)
        databases = self._folder.databases
        self._state, self._records, self._journal, self._deleted = databases.values()

    def abandon(self) -> None:
        """Take back the open publication, with the store where it was made for that."""
        if self._folder.made and self.current() is None and self._is_publisher():
            self.close()
            self._folder.remove()
        else:
            super().abandon()

    def _is_publisher(self) -> bool:
        with self._folder.transaction() as transaction:
            open_version = transaction.get(OPEN_VERSION, db=self._state)
        return self._open is None or open_version == b"%d" % self._open.version

    def current(self) -> Publication | None:
        """The publication readers see, or None in a new store."""
        with self._folder.transaction() as transaction:
            return self._publication_in(transaction)

    def size_bytes(self) -> int:
        """Bytes of the data file; pages freed by ``prune`` stay in it and are used again."""
        return self._folder.size_bytes()

    def close(self) -> None:
        """Close the environment."""
        self._folder.close()

    def prune(self) -> int:
        """Drop superseded records, guided by the journal of committed versions."""
        dropped = 0
        while True:
            with self._folder.transaction(write=True) as transaction:
                publication = self._publication_in(transaction)
                entries = self._journal_entries(
                    transaction, 0, publication.version if publication else 0
                )
                for version, key in entries:
                    dropped += self._drop_superseded(transaction, version, key)
                    transaction.delete(_version_bytes(version) + key, db=self._journal)
            if not entries:
                return dropped

    def _drop_superseded(self, transaction: lmdb.Transaction, version: int, key: bytes) -> int:
        """Drop what is older than the user's record of ``version``, and that one if withdrawn."""
        dropped = 0
        with transaction.cursor(db=self._records) as cursor:
            if not cursor.set_key(key + _newest_first(version)):
                return 0
            # delete() moves on to the next record, which is an older one of the same user or
            # belongs to another user.
            more = cursor.delete() if len(cursor.value()) == WITHDRAWN_BYTES else cursor.next()
            while more and cursor.key()[:-8] == key:
                more = cursor.delete()
                dropped += 1
        return dropped

    def _journal_entries(
        self, transaction: lmdb.Transaction, first: int, last: int
    ) -> list[tuple[int, bytes]]:
        """Some (version, key) of the journal with ``first <= version <= last``."""
        entries: list[tuple[int, bytes]] = []
        with transaction.cursor(db=self._journal) as cursor:
            found = cursor.set_range(_version_bytes(first))
            while found and len(entries) < ENTRIES_PER_TRANSACTION:
                entry = cursor.key()
                version = int.from_bytes(entry[:8], "big")
                if version > last:
                    break
                entries.append((version, bytes(entry[8:])))
                found = cursor.next()
        return entries

    def check(self) -> int:
        """Read every record and compare its checksum; returns how many there are."""
        with self._folder.transaction(buffers=True) as transaction:
            self._publication_in(transaction)
            self._walk(transaction, self._journal)
            return self._walk(transaction, self._records, _decoded)

    def _walk(
        self,
        transaction: lmdb.Transaction,
        database: lmdb._Database,
        check: Callable[[lmdb.Cursor], object] = lambda cursor: None,
    ) -> int:
        """How many entries there are, which are in order and as many as LMDB has counted."""
        entries, former = 0, b""
        with transaction.cursor(db=database) as cursor:
            for entry in cursor.iternext(keys=True, values=False):
                key = bytes(entry)
                if key <= former:
                    raise self._folder.damaged("its keys are out of order")
                check(cursor)
                entries, former = entries + 1, key
        if entries != transaction.stat(database)["entries"]:
            raise self._folder.damaged("records are lost")
        return entries

    def _read(self, keys: Sequence[bytes]) -> list[StoredEmbedding | None]:
        # One transaction is one snapshot, whatever a publisher does meanwhile.
        with self._folder.transaction(buffers=True) as transaction:
            publication = self._publication_in(transaction)
            if publication is None:
                return [None] * len(keys)
            newest = _newest_first(publication.version)
            with transaction.cursor(db=self._records) as cursor:
                return [self._find(cursor, key, key + newest) for key in keys]

    def _find(self, cursor: lmdb.Cursor, key: bytes, wanted: bytes) -> StoredEmbedding | None:
        """The record of a user at or after ``wanted``.

        A user may also be missed because the tree is damaged; then the records beside the place
        where the user should be are damaged, or do not belong there.
        """
        after = cursor.set_range(wanted)
        if after and cursor.key()[:-8] == key:
            return _decoded(cursor)
        if after and bytes(cursor.key()) < wanted:
            raise self._folder.damaged("its keys are out of order")
        if after:
            _decoded(cursor)
        if cursor.prev() if after else cursor.last():
            if bytes(cursor.key()) > wanted:
                raise self._folder.damaged("its keys are out of order")
            _decoded(cursor)
        return None

    def _keys(self) -> Iterator[bytes]:
        with (
            self._folder.transaction() as transaction,
            transaction.cursor(db=self._records) as cursor,
        ):
            found = cursor.first()
            while found:
                key = cursor.key()[:-8]
                yield key
                found = cursor.set_range(key + _version_bytes(LARGEST_VERSION) + b"\0")

    def _take_version(self) -> int:
        with self._folder.transaction(write=True) as transaction:
            publication = self._publication_in(transaction)
            next_version = transaction.get(NEXT_VERSION, b"1", db=self._state)
            version = int(next_version) if next_version.isdigit() else 0
            if version <= (publication.version if publication else 0):
                raise self._folder.damaged("the number of its next version is no later one")
            transaction.put(NEXT_VERSION, b"%d" % (version + 1), db=self._state)
            transaction.put(OPEN_VERSION, b"%d" % version, db=self._state)
            transaction.drop(self._deleted, delete=False)
        first = publication.version + 1 if publication else 0
        while self._take_back_some(first, LARGEST_VERSION):
            pass
        return version

    def _take_back(self, version: int) -> None:
        while self._take_back_some(version, version):
            pass

    def _take_back_some(self, first: int, last: int) -> bool:
        """Remove some records of these publications, none committed; whether there were any."""
        with self._folder.transaction(write=True) as transaction:
            entries = self._journal_entries(transaction, first, last)
            for version, key in entries:
                transaction.delete(key + _newest_first(version), db=self._records)
                transaction.delete(_version_bytes(version) + key, db=self._journal)
        return bool(entries)

    def _write(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        version = self._publication().version
        with self._folder.transaction(write=True) as transaction:
            self._require_publisher(transaction)
            for key, record in records:
                if transaction.get(key, db=self._deleted) is None:
                    transaction.put(key + _newest_first(version), record, db=self._records)
                    transaction.put(_version_bytes(version) + key, b"", db=self._journal)

    def _flip(self, publication: Publication) -> None:
        with self._folder.transaction(write=True) as transaction:
            self._require_publisher(transaction)
            transaction.put(CURRENT, encode_publication(publication), db=self._state)
            transaction.delete(OPEN_VERSION, db=self._state)
            transaction.drop(self._deleted, delete=False)

    def _delete(self, key: bytes) -> None:
        with self._folder.transaction(write=True) as transaction:
            with transaction.cursor(db=self._records) as cursor:
                found = cursor.set_range(key)
                while found and cursor.key()[:-8] == key:
                    version = LARGEST_VERSION - int.from_bytes(cursor.key()[-8:], "big")
                    transaction.delete(_version_bytes(version) + key, db=self._journal)
                    found = cursor.delete()
            if transaction.get(OPEN_VERSION, db=self._state) is not None:
                transaction.put(key, b"", db=self._deleted)

    def _require_publisher(self, transaction: lmdb.Transaction) -> None:
        open_version = transaction.get(OPEN_VERSION, db=self._state)
        if open_version != str(self._publication().version).encode():
            raise self._superseded()

    def _publication_in(self, transaction: lmdb.Transaction) -> Publication | None:
        return decode_publication(transaction.get(CURRENT, db=self._state), str(self._folder.path))


def _decoded(cursor: lmdb.Cursor) -> StoredEmbedding | None:
    """The record a cursor of records, of buffers, stands on."""
    key = bytes(cursor.key())
    version = LARGEST_VERSION - int.from_bytes(key[-8:], "big")
    return decode_record(key[:-8], version, cursor.value())
