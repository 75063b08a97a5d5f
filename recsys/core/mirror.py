"""Folders at URLs: copied to a cache on the disk to be read, and uploaded whole or not at all.

What reads a folder (a prepared data set, a run, an artifact) maps its files into memory, so it
gets a copy of those that it reads. The cache is keyed by URL and content: a copy never changes what
somebody reads, and of a folder that has grown only the new files are fetched.

A folder that was uploaded has a list of its files, ``recsys_folder.json``, with their SHA-256; it
is written last, in one step, so a reader finds the folder of before or of after. A file that
replaces another one lies beside it under a name of its own. Only a command that uploads again and
again, as a training does, removes what it has replaced (:meth:`Mirror.upload`). Without a list a
folder is what is listed below its URL, as other tools have copied it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from recsys.core.checksums import COPY_NOTE
from recsys.core.durable import PARTIAL, replaced_file
from recsys.core.errors import ConfigError, DataError
from recsys.core.folder_list import (
    FolderList,
    StoredFile,
    inside,
    read_list,
    without_list,
    write_list,
)
from recsys.core.folders import locked_folder
from recsys.core.json_files import read_json, write_json
from recsys.core.location import RemotePath, located, reached
from recsys.core.progress import track

CACHE_VARIABLE = "RECSYS_CACHE_DIR"

_COPY = "note of what a copy is of"
#: Bytes of a file that are in memory at once.
_PIECE = 1 << 22
#: Files that are on their way at the same time.
_AT_ONCE = 8


def local_folder(place: Path | str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """A folder on the disk: the place itself, or a copy of what lies at its URL.

    Args:
        place: a folder, or the URL of one.
        wanted: whether a file, by its name in the folder, is copied; what other readers have
            wanted of the same content may lie beside it.

    Raises:
        DataError: there is nothing, its upload was not finished, or it is not what was uploaded.
        ConfigError: as ``located``.
    """
    place = located(place)
    if not isinstance(place, RemotePath):
        return place
    listed = read_list(place)
    files = without_list(place) if listed is None else listed.files
    if listed is not None and not listed.whole:
        raise DataError(
            f"{place} is not whole: its upload has begun and was not finished; repeat the command "
            "that makes it."
        )
    if not files:
        raise DataError(f"{place} is not there; see whether bucket and name are right.")
    content = {name: asdict(file) for name, file in files.items()}
    cached = _cache_of(place)
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    folder = cached / key / place.name
    with locked_folder(folder):
        if not all(map(wanted, files)):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / COPY_NOTE, _COPY, {"url": str(place), "files": content})
        _complete(folder, place, files, wanted)
    return folder


def fetch_more(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Copy more files of what lay at the URL of a copy when that was made.

    Raises:
        DataError: one is not what was uploaded, or the store says no.
    """
    content = read_json(folder / COPY_NOTE, _COPY, DataError, f"remove {folder}")
    files = {inside(name): StoredFile(**one) for name, one in content["files"].items()}
    if any(wanted(name) and not os.path.lexists(folder / name) for name in files):
        with locked_folder(folder):
            _complete(folder, RemotePath(content["url"]), files, wanted)


def _complete(
    folder: Path,
    place: RemotePath,
    files: Mapping[str, StoredFile],
    wanted: Callable[[str], bool],
) -> None:
    """Copy those files to the cache that a copy lacks, and give them their places."""
    cached = _cache_of(place)
    missing = [name for name in files if wanted(name) and not os.path.lexists(folder / name)]
    distinct = {files[name].digest: files[name] for name in missing if not files[name].link}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        kept = threads.map(lambda one: _fetch(place, one, cached), distinct.values())
        for _ in track(kept, f"Copying {place}", len(distinct)) if distinct else ():
            pass
    for name in missing:
        _link(files[name], folder / name, cached)


@contextmanager
def mirrored(place: Path | str) -> Iterator[Path]:
    """A folder on the disk to make or change, which lies at ``place`` when the block ends well.

    Of a URL it starts as what lies there. Where the block fails, nothing at the URL has changed.

    Raises:
        DataError: somebody else has changed what lies there meanwhile, or the store says no.
        ConfigError: objects lie there that no command has uploaded.
    """
    place = located(place)
    if not isinstance(place, RemotePath):
        yield place
        return
    with mirror_of(place, os.link) as mirror:
        try:
            yield mirror.folder
            if mirror.folder.is_dir():
                mirror.upload()
        finally:
            shutil.rmtree(mirror.folder.parent, ignore_errors=True)


@contextmanager
def mirror_of(
    place: RemotePath, copy: Callable[[str, str], object] = shutil.copy2
) -> Iterator[Mirror]:
    """A folder on the disk that starts as what lies at a URL, and is uploaded when it is asked for.

    It stays when the block has ended, until the next one of the same URL.

    Args:
        place: the URL.
        copy: how files of the cache get there: as links, where what changes is replaced and never
            written to.

    Raises:
        ConfigError: objects lie there that no command has uploaded.
    """
    before = read_list(place)
    if before is None and without_list(place):
        raise ConfigError(
            f"{place} holds objects that this command has not uploaded: nothing there is replaced. "
            "Give another place, or remove them yourself."
        )
    work = _cache_of(place) / "work"
    with locked_folder(work):
        shutil.rmtree(work, ignore_errors=True)  # of the one before
        folder = work / place.name
        work.mkdir(parents=True)
        if before is not None and before.whole:
            whole, hidden = local_folder(place), shutil.ignore_patterns(COPY_NOTE)
            shutil.copytree(whole, folder, symlinks=True, ignore=hidden, copy_function=copy)
        yield Mirror(place, folder, before)


class Mirror:
    """A folder on the disk, and the URL to which it is uploaded.

    Args:
        place: the URL.
        folder: on the disk.
        before: the list at the URL.
    """

    def __init__(self, place: RemotePath, folder: Path, before: FolderList | None) -> None:
        self.place = place
        self.folder = folder
        self._before = before
        self._named = {one.object for one in before.files.values()} - {""} if before else set[str]()

    def upload(self) -> None:
        """Upload what has changed, then the list; then remove what it does not need any more.

        That is what a list since this mirror was opened has named, and neither this one nor the one
        before it does: who has begun to read by that one can end.

        Raises:
            DataError: somebody else has changed what lies there, or the store says no.
        """
        before = self._before
        former = {} if before is None else dict(before.files)
        self._refuse_changed(before)
        if before is None:
            self._before = before = FolderList(False, {})
            write_list(self.place, before)  # from now on what lies there is ours
        files: dict[str, StoredFile] = {}
        for path in track(_files(self.folder), f"Uploading {self.place}"):
            name = path.relative_to(self.folder).as_posix()
            if path.is_symlink():
                files[name] = StoredFile("", 0, "", inside(os.readlink(path)))
            else:
                files[name] = self._stored(path, name, former.get(name))
        if files == former and before.whole:
            return
        self._refuse_changed(before)
        self._before = FolderList(True, files)
        write_list(self.place, self._before)
        needed = {one.object for one in (*former.values(), *files.values())}
        for gone in self._named - needed:
            (self.place / gone).unlink()
        self._named = needed - {""}  # of links

    def _stored(self, path: Path, name: str, former: StoredFile | None) -> StoredFile:
        """Upload a file, unless it is there.

        Of one that grows meanwhile, such as a log, so much as there is now.
        """
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = _digest(file, size)
            if former is not None and former.digest == digest:
                return former
            is_new = former is None and not (self.place / name).exists()
            stored = name if is_new else f"{name}~{digest[:12]}"
            file.seek(0)
            target = self.place / stored
            with target.open("wb") as out, reached(target):
                for piece in _pieces(file, size):
                    out.write(piece)
        return StoredFile(stored, size, digest)

    def _refuse_changed(self, before: FolderList | None) -> None:
        if read_list(self.place) != before:
            raise DataError(
                f"{self.place} was changed by somebody else meanwhile, and stays as they left it; "
                "repeat the command."
            )


def _fetch(place: RemotePath, stored: StoredFile, cached: Path) -> None:
    """Copy an object to the cache, unless it is there."""
    kept = _kept(stored, cached)
    if kept.is_file():
        return
    kept.parent.mkdir(exist_ok=True)
    source = place / stored.object
    with replaced_file(kept) as partial:
        with source.open() as file, partial.open("wb") as out, reached(source):
            size, checksum = 0, hashlib.sha256()
            while piece := file.read(_PIECE):
                out.write(piece)
                checksum.update(piece)
                size += len(piece)
        problem = None
        if size != stored.bytes:
            problem = f"has {size:,} bytes, {stored.bytes:,} were uploaded"
        elif stored.has_checksum and checksum.hexdigest() != stored.digest:
            problem = "is not what was uploaded (another SHA-256)"
        if problem is not None:
            raise DataError(f"{source} {problem}; upload {place} again.")


def _link(stored: StoredFile, target: Path, cached: Path) -> None:
    """Give a file of a copy its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if stored.link is not None:
        target.symlink_to(stored.link)
    else:
        os.link(_kept(stored, cached), target)


def _kept(stored: StoredFile, cached: Path) -> Path:
    return cached / "objects" / stored.digest


def _files(folder: Path) -> list[Path]:
    """What is uploaded of a folder: no locks and nothing on its way."""
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink())
        and path.suffix != PARTIAL
        and not path.name.startswith(".")
    )


def _digest(file: BinaryIO, size: int) -> str:
    """SHA-256 of so many bytes of a file."""
    checksum = hashlib.sha256()
    for piece in _pieces(file, size):
        checksum.update(piece)
    return checksum.hexdigest()


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """So many bytes of a file."""
    while size and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece


def _cache_of(place: RemotePath) -> Path:
    """Where copies of what lies at a URL are kept."""
    if given := os.environ.get(CACHE_VARIABLE):
        root = Path(given)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "recsys"
    folder = root / "folders" / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
