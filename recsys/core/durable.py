"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    partial = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{PARTIAL}")
    with named_if_full(path):
        try:
            yield partial
            with partial.open("rb") as file:
                sync_file(file)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that are no more have begun of ``path``."""
    begin = f"{path.name}.{socket.gethostname()}-"
    for partial in path.parent.glob(f"{glob.escape(begin)}*{PARTIAL}"):
        process = partial.name[len(begin) : -len(PARTIAL)]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
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
