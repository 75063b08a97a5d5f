"""Folders that commands make: whose they are, locked while they change, replaced in one step.

One rule holds for whatever a command writes: it may be new, in an empty folder, or in the place of
what such a command wrote before. Anything else is somebody's, and refused before any work is done.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import FileIO
from pathlib import Path
from typing import TypeVar

from recsys.core.disk import named_if_full
from recsys.core.durable import PARTIAL, sync_folder
from recsys.core.errors import ConfigError, RecsysError

Read = TypeVar("Read")

#: RENAME_EXCHANGE of renameat2(2), which Python does not have.
_EXCHANGE = 2

#: How often, and how many seconds apart, a folder is read again that is being replaced.
_READ_ATTEMPTS, _READ_PAUSE = 50, 0.02


@dataclass(frozen=True)
class FolderKind:
    """How a folder that a command made is told from anybody else's.

    Attributes:
        name: what it is: "an exported artifact".
        marker: the JSON file that says so.
        keys: what the marker has at its top.
        files: patterns of every file that commands write there, relative to the folder; ``*``
            stands for any characters.
    """

    name: str
    marker: str
    keys: tuple[str, ...]
    files: tuple[str, ...]

    def made(self, folder: Path) -> bool:
        """Whether the marker of this kind is there."""
        try:
            content = json.loads((folder / self.marker).read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and set(self.keys) <= set(content)

    def foreign(self, folder: Path) -> Path | None:
        """A file in the folder that no command has written, relative to it."""
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            is_file = path.is_symlink() or not path.is_dir()
            if is_file and path.suffix != PARTIAL and not self._writes(relative.as_posix()):
                return relative
        return None

    def _writes(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in (self.marker, *self.files))


def check_folder(folder: Path, kind: FolderKind, inputs: Iterable[Path | str] = ()) -> None:
    """Check that a command may write into ``folder``, beside what else may lie there.

    Args:
        folder: new, empty, or made by a command of this kind.
        kind: what is to be made.
        inputs: what the command reads; neither may lie within the other.

    Raises:
        ConfigError: it may not.
    """
    check_place(folder, inputs)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder that is to become {kind.name}.")
    if not any(folder.iterdir()):
        return
    if not kind.made(folder):
        raise ConfigError(
            f"{folder} exists and is not {kind.name}: nothing in it is replaced. Give another "
            "folder, or remove it yourself."
        )


def check_replaced(folder: Path, kind: FolderKind, inputs: Iterable[Path | str] = ()) -> None:
    """Check that a command may replace all of ``folder``: as ``check_folder``, and nothing beside.

    Raises:
        ConfigError: it may not.
    """
    check_folder(folder, kind, inputs)
    foreign = kind.foreign(folder)
    if foreign is not None:
        raise ConfigError(
            f"{folder} is {kind.name}, but {foreign} in it was not written by recsys and would be "
            "lost; move it elsewhere, or give another folder."
        )


def check_file(path: Path, ours: Callable[[Path], bool], inputs: Iterable[Path | str] = ()) -> None:
    """Check that a command may write ``path``: new, or a file for which ``ours`` holds.

    Raises:
        ConfigError: it may not.
    """
    check_place(path, inputs)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the file to write.")
    if path.exists() and not ours(path):
        raise ConfigError(
            f"{path} exists and was not written by this command: it is not replaced. Give another "
            "file, or remove it yourself."
        )


def check_new(path: Path, inputs: Iterable[Path | str] = ()) -> None:
    """Check that nothing is at ``path``.

    Raises:
        ConfigError: something is.
    """
    if os.path.lexists(path):
        raise ConfigError(f"{path} is there already; give another `out=…`, or remove it.")
    check_place(path, inputs)


def check_begun(folder: Path, markers: Iterable[str], name: str) -> None:
    """Check that a command may work in ``folder``, beside what else such commands keep there.

    Args:
        folder: new, empty, or with something that one of the ``markers`` matches.
        markers: patterns of what shows that such a command was here.
        name: what it is the folder of: "a study".

    Raises:
        ConfigError: the folder is somebody else's.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder for {name}.")
    if any(folder.iterdir()) and not any(any(folder.glob(marker)) for marker in markers):
        raise ConfigError(
            f"{folder} is not empty and not the folder of {name}; give another out=, or empty it "
            "yourself."
        )


def check_place(path: Path, inputs: Iterable[Path | str]) -> None:
    """Check that ``path`` is no link, is not around the current folder, and apart from inputs.

    Raises:
        ConfigError: it is not.
    """
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a link to {os.readlink(path)}, and what it leads to is not replaced; give "
            "the place itself."
        )
    real = path.resolve()
    if Path.cwd().is_relative_to(real):
        raise ConfigError(
            f"{path} is the folder that this command runs in, or around it; give a place of its "
            "own."
        )
    for one in inputs:
        read = Path(one).resolve()
        if real.is_relative_to(read) or read.is_relative_to(real):
            raise ConfigError(
                f"{path} cannot be written while {one} is read: one is the other, or lies in it; "
                "give a place apart."
            )


def has_lock(folder: Path) -> bool:
    """Whether somebody changes ``folder`` now, or was killed while doing it."""
    return _lock_file(folder).exists()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep others who change ``folder``, or a file of this name, waiting until the block ends.

    Who waits says for whom, in a line on standard error.
    """
    folder = folder.resolve()
    try:
        with named_if_full(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} cannot be made, for {error.filename} is a file; give another place."
        ) from error
    with _lock(folder) as file:
        try:
            with named_if_full(folder):
                file.truncate(0)
                file.write(_who().encode())
            _restore_folder(folder)
            shutil.rmtree(_partial(folder), ignore_errors=True)  # of a writer that was killed
            yield
        finally:
            _lock_file(folder).unlink(missing_ok=True)  # while it is held: see ``_lock``


@contextmanager
def made_folder(
    folder: Path, kind: FolderKind, inputs: Iterable[Path | str] = ()
) -> Iterator[Path]:
    """A folder to write in that becomes ``folder`` when the block ends well, others kept waiting.

    Raises:
        ConfigError: ``folder`` may not be replaced: see ``check_replaced``.
        RecsysError: the file system is full.
    """
    check_replaced(folder, kind, inputs)
    with locked_folder(folder), replaced_folder(folder) as partial:
        yield partial
        check_replaced(folder, kind, inputs)  # what came meanwhile is not replaced either


@contextmanager
def replaced_folder(folder: Path, start_from: Path | None = None) -> Iterator[Path]:
    """A folder to write in that takes the place of ``folder`` when the block ends well.

    Args:
        folder: what is to be replaced or made, locked; it stays as it is if the block fails.
        start_from: folder whose files the new one starts with, as hard links: replace such a
            file, never write into it.

    Raises:
        RecsysError: the file system is full.
    """
    folder = folder.resolve()
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    with named_if_full(folder):
        try:
            if start_from is None:
                partial.mkdir()
            else:
                shutil.copytree(start_from, partial, copy_function=os.link)
            yield partial
            _swap(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def read_whole(folder: Path, read: Callable[[], Read]) -> Read:
    """What ``read`` makes of a folder, read again where the folder was replaced meanwhile.

    Readers need no lock: what they have opened stays until they close it.
    """
    attempt = 0
    while True:
        attempt += 1
        before = _identity(folder)
        try:
            found = read()
        except (RecsysError, OSError):
            if attempt == _READ_ATTEMPTS or not _is_moving(folder, before):
                raise
        else:
            if attempt == _READ_ATTEMPTS or before == _identity(folder):
                return found
        time.sleep(_READ_PAUSE)


def _is_moving(folder: Path, before: tuple[int, int] | None) -> bool:
    """Whether a folder was replaced since, or is just between its two names."""
    now = _identity(folder)
    return now != before or (now is None and _previous(folder.resolve()).exists())


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _swap(partial: Path, folder: Path) -> None:
    """Put one folder in the place of the other, which then is the partial one or gone."""
    if folder.exists() and _exchanged(partial, folder):
        sync_folder(folder.parent)
        return
    previous = _previous(folder)
    if folder.exists():
        folder.rename(previous)
    try:
        partial.rename(folder)
    except BaseException:
        _restore_folder(folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change names in one step; whether this file system can do that."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return exchange is not None and exchange(0, names[0], 0, names[1], _EXCHANGE) == 0


def _lock(folder: Path) -> FileIO:
    """The lock file, open and locked; who held it before has removed the one that it held.

    It has no buffer, which on a full disk would fail once more, without a name, when closed.
    """
    path = _lock_file(folder)
    while True:
        with named_if_full(folder):
            file = path.open("a+b", buffering=0)
        _wait(file, folder)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()


def _wait(lock: FileIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        whom = lock.read().decode() or "another process"
        from recsys.core.console import message_console  # Rich, which few wait for

        message_console().print(f"Waiting for {whom}, which is changing {folder}.")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _who() -> str:
    """This process, for who waits for it; its settings may be secret."""
    verb = [Path(sys.argv[0]).name, *(word for word in sys.argv[1:3] if word.isalpha())]
    return f"process {os.getpid()} on {socket.gethostname()} ({' '.join(verb)})"


def _restore_folder(folder: Path) -> None:
    """Put back the previous folder where a crash fell between the two renames of a swap."""
    previous = _previous(folder)
    if previous.exists():
        if folder.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(folder)


def _lock_file(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{PARTIAL}")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")
