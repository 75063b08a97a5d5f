"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one atomic, durable step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        sync_file(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_file(descriptor: int) -> None:
    """Force an open file's content to the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (created, renamed and removed names) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
