"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from recsys.core.disk import named_if_full

#: Suffix of a file on its way; one that a killed process leaves means nothing.
PARTIAL = ".partial"


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one atomic, durable step."""
    with replaced_file(path) as partial:
        partial.write_bytes(content)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of ``path``, durably, when the block ends well.

    Where the block fails, ``path`` stays as it is; a link at ``path`` is replaced, not what it
    leads to. What killed processes have left of such files of ``path`` is removed.

    Raises:
        RecsysError: the file system is full.
    """
    _remove_abandoned(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    with named_if_full(path), _locked(partial):
        try:
            yield partial
            with partial.open("rb") as file:
                sync_file(file)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Make a file and hold a lock on it, by which others know that its writer lives."""
    file = _opened_and_locked(partial)
    try:
        yield
    finally:
        file.close()


def _opened_and_locked(partial: Path) -> BinaryIO:
    while True:
        file = partial.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists() and os.path.samestat(partial.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # it was taken for abandoned before it was locked


def _remove_abandoned(path: Path) -> None:
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*{PARTIAL}"):
        if partial.name[len(path.name) + 1 : -len(PARTIAL)].isdecimal() and partial.is_file():
            with partial.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it is being written
                partial.unlink(missing_ok=True)


def sync_file(file: IO[bytes]) -> None:
    """Force what was written to an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (created, renamed and removed names) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
