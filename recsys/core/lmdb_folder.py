"""An LMDB in a folder of its own: opened, used, and where it cannot be, a sentence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import lmdb

from recsys.core.disk import named_if_full
from recsys.core.errors import RecsysError

#: Address space to reserve; the file itself only grows with what is written.
MAP_SIZE = 1 << 40
#: Bytes that must be free for a new one: with less, writing to its mapped lock ends the process.
_LEAST_ROOM = 1 << 20

#: The files of an LMDB.
DATA_FILE, LOCK_FILE = "data.mdb", "lock.mdb"


@dataclass(frozen=True)
class LmdbKind:
    """What such a folder holds.

    Attributes:
        name: "embedding store".
        databases: names of its databases; every one of this kind has the first of them.
        make: the end of the sentence that there is none: how one is made.
        mend: the end of the sentence that it is damaged: what the user can do.
        error: raised where it cannot be used.
    """

    name: str
    databases: tuple[bytes, ...]
    make: str
    mend: str
    error: type[RecsysError]


class LmdbFolder:
    """The open environment.

    Args:
        path: the folder; created unless ``readonly``.
        kind: what it holds.
        readonly: for readers; they never wait for a writer.
        durable: whether a transaction waits for the disk; else what is lost with the machine's
            power, and not with the process, is the whole folder.

    Attributes:
        databases: by name.

    Raises:
        RecsysError: the kind's error: the folder holds something else or cannot be opened.
    """

    def __init__(
        self, path: Path, kind: LmdbKind, readonly: bool = False, durable: bool = True
    ) -> None:
        self.path = path
        self.kind = kind
        if readonly and not (path / DATA_FILE).is_file():
            raise kind.error(f"{path} is no {kind.name} (no {DATA_FILE} in it); {kind.make}.")
        self._refuse_other_files()
        file = path / DATA_FILE
        if file.is_file() and not file.stat().st_size:  # LMDB would begin a new store
            raise self.damaged(f"{DATA_FILE} is empty")
        self.made = not file.exists()
        try:
            with self._sentences(), named_if_full(path):
                path.mkdir(parents=True, exist_ok=True)
                if self.made and shutil.disk_usage(path).free < _LEAST_ROOM:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._open(readonly, durable)
        except RecsysError:
            if self.made:
                self.remove()
            raise

    def _refuse_other_files(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise self.kind.error(
                f"{self.path} is a file; give the folder of an LMDB ({self.kind.name})."
            )
        others = [path.name for path in self.path.glob("*") if path.name != LOCK_FILE]
        if others and DATA_FILE not in others:
            raise self.kind.error(
                f"{self.path} holds {others[0]} and is no {self.kind.name}; give an empty or new "
                "folder."
            )

    def _open(self, readonly: bool, durable: bool) -> None:
        # No read-ahead: readers fetch single records from a file larger than memory.
        self._environment = lmdb.open(
            str(self.path),
            map_size=MAP_SIZE,
            max_dbs=len(self.kind.databases),
            max_readers=1024,
            readonly=readonly,
            readahead=False,
            sync=durable,
        )
        self._refuse_cut_off()
        create = not readonly
        if create:
            self._refuse_other_databases()
            self._environment.reader_check()  # places of killed readers, of which there are so many
        self.databases = {
            name: self._environment.open_db(name, create=create) for name in self.kind.databases
        }

    def _refuse_other_databases(self) -> None:
        with self._environment.begin() as transaction:
            names = [bytes(name) for name in transaction.cursor().iternext(values=False)]
        if names and self.kind.databases[0] not in names:
            raise self.kind.error(
                f"{self.path} is an LMDB of another program (it has {names[0]!r}); give an empty "
                "or new folder."
            )

    def _refuse_cut_off(self) -> None:
        """Compare the file's size with what it says of itself: a page that is not there kills."""
        expected = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        size = self.size_bytes()  # now: a writer lets it grow first
        if size < expected:
            self._environment.close()
            raise self.damaged(f"{DATA_FILE} has {size} bytes and had at least {expected}")

    def remove(self) -> None:
        """Remove the files of one in which nothing was ever written."""
        for name in (DATA_FILE, LOCK_FILE):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # the folder may have been there
            self.path.rmdir()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """What LMDB says of a file it cannot use, as a sentence."""
        try:
            yield
        except lmdb.Error as error:
            raise self.kind.error(
                f"The {self.kind.name} {self.path} cannot be used: LMDB says {error}; where its "
                f"{DATA_FILE} is damaged, {self.kind.mend}."
            ) from error

    @contextmanager
    def transaction(self, write: bool = False, buffers: bool = False) -> Iterator[lmdb.Transaction]:
        """A transaction that is committed when the block ends well; a durable one is on the disk.

        Raises:
            RecsysError: the file cannot be used, or the file system is full.
        """
        with ExitStack() as stack:
            stack.enter_context(self._sentences())
            if write:
                stack.enter_context(named_if_full(self.path))
            yield stack.enter_context(self._environment.begin(write=write, buffers=buffers))

    def damaged(self, finding: str) -> RecsysError:
        """The error of one that is not what was written."""
        return self.kind.error(
            f"The {self.kind.name} {self.path} is damaged ({finding}); {self.kind.mend}."
        )

    def size_bytes(self) -> int:
        """Bytes of the data file; pages that were freed stay in it and are used again."""
        return (self.path / DATA_FILE).stat().st_size

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()
