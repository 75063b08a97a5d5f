"""Folders that are replaced in one step, and locked while they are."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.core.durable import sync_folder


def was_ever_locked(folder: Path) -> bool:
    """Whether ``locked_folder`` has been here: its lock file stays beside the folder."""
    return _lock_file(folder).exists()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other preparations of ``folder`` waiting until the block ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock_file(folder).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _restore_folder(folder)
        yield


@contextmanager
def replaced_folder(folder: Path, start_from: Path | None = None) -> Iterator[Path]:
    """A folder to write in that takes the place of ``folder`` when the block ends well.

    Args:
        folder: what is to be replaced or made, locked; it stays as it is if the block fails.
        start_from: folder whose files the new one starts with, as hard links: replace such a
            file, never write into it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    if start_from is None:
        partial.mkdir()
    else:
        shutil.copytree(start_from, partial, copy_function=os.link)
    try:
        yield partial
        previous = _previous(folder)
        if folder.exists():
            folder.rename(previous)
        partial.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _restore_folder(folder: Path) -> None:
    """Put back the previous folder where a crash fell between the two renames of a swap."""
    previous = _previous(folder)
    if previous.exists():
        if folder.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(folder)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")
