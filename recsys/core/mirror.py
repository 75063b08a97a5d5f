"""Folders at URLs: copied to a cache on the disk to be read, and uploaded whole or not at all.

What reads a folder (a prepared data set, a run, an artifact) maps its files into memory, so it
gets a copy. The cache is keyed by URL and content: a copy never changes what somebody reads, and of
a folder that has grown only the new files are fetched.

A folder that was uploaded has a list of its files, ``recsys_folder.json``, with their SHA-256; it
is written last, in one step, so a reader finds the folder of before or of after. A file that
replaces another one lies beside it under a name of its own; nothing at a URL is removed. Without a
list a folder is what is listed below its URL, as other tools have copied it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from recsys.core.durable import PARTIAL, replaced_file
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import locked_folder
from recsys.core.json_files import decode_json, encode_json
from recsys.core.location import RemotePath, is_url, located, reached
from recsys.core.progress import track

CACHE_VARIABLE = "RECSYS_CACHE_DIR"
LIST_FILE = "recsys_folder.json"

_KIND = "list of the files of a folder"
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Bytes of a file that are in memory at once.
_PIECE = 1 << 22
#: Files that are on their way at the same time.
_AT_ONCE = 8


@dataclass(frozen=True)
class _Stored:
    """A file of a folder at a URL.

    Attributes:
        object: its name there.
        bytes: its size.
        digest: SHA-256 of its content; of a folder without a list, what its store says of it.
        link: for a link, the name beside it that it leads to; it has no object.
    """

    object: str
    bytes: int
    digest: str
    link: str | None = None


def local_folder(place: Path | str) -> Path:
    """A folder on the disk: the place itself, or a copy of what lies at its URL.

    Raises:
        DataError: there is nothing, its upload was not finished, or it is not what was uploaded.
        ConfigError: as ``located``.
    """
    place = located(place)
    if not isinstance(place, RemotePath):
        return place
    listed = _read_list(place)
    files = _listing(place) if listed is None else listed.files
    if listed is not None and not listed.whole:
        raise DataError(
            f"{place} is not whole: its upload has begun and was not finished; repeat the command "
            "that makes it."
        )
    if not files:
        raise DataError(f"{place} is not there; see whether bucket and name are right.")
    key = json.dumps({name: asdict(file) for name, file in files.items()}, sort_keys=True)
    cached = _cache_of(place)
    folder = cached / hashlib.sha256(key.encode()).hexdigest()[:16] / place.name
    with locked_folder(folder):
        missing = [name for name in files if not os.path.lexists(folder / name)]
        distinct = {files[name].digest: files[name] for name in missing if not files[name].link}
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            kept = threads.map(lambda one: _fetch(place, one, cached), distinct.values())
            for _ in track(kept, f"Copying {place}", len(distinct)) if distinct else ():
                pass
        for name in missing:
            _link(files[name], folder / name, cached)
    return folder


def with_local_folders(config: Any, *names: str) -> Any:
    """Settings in whose fields ``names`` folders at URLs became their copies."""
    given = {name: getattr(config, name) for name in names}
    copies = {n: str(local_folder(one)) for n, one in given.items() if one and is_url(one)}
    return replace(config, **copies) if copies else config


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
    before = _read_list(place)
    if before is None and _listing(place):
        raise ConfigError(
            f"{place} holds objects that this command has not uploaded: nothing there is replaced. "
            "Give another place, or remove them yourself."
        )
    work = _cache_of(place) / "work"
    with locked_folder(work):
        shutil.rmtree(work, ignore_errors=True)  # of one that was killed
        folder = work / place.name
        try:
            work.mkdir(parents=True)
            if before is not None and before.whole:
                shutil.copytree(local_folder(place), folder, symlinks=True, copy_function=os.link)
            yield folder
            if folder.is_dir():
                _upload(folder, place, before)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class _List:
    """What ``recsys_folder.json`` says; ``whole`` once every file is there."""

    whole: bool
    files: Mapping[str, _Stored]


def _read_list(place: RemotePath) -> _List | None:
    path = place / LIST_FILE
    if not path.is_file():
        return None
    try:
        with path.open() as file, reached(path):
            content = decode_json(_KIND, file.read())
        files = {_inside(name): _Stored(**one) for name, one in content["files"].items()}
        for one in files.values():
            _inside(one.link or one.object)
            if one.link is None and not _SHA256.fullmatch(one.digest):
                raise ValueError("a file has no SHA-256")
        return _List(content["whole"], files)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is damaged or no {_KIND} of this release ({error}); upload the folder again "
            "to another place."
        ) from error


def _write_list(place: RemotePath, listed: _List) -> None:
    content = encode_json(
        _KIND,
        {
            "whole": listed.whole,
            "files": {name: asdict(one) for name, one in sorted(listed.files.items())},
        },
    )
    path = place / LIST_FILE
    with reached(path), path.open("wb") as file:
        file.write(content)


def _listing(place: RemotePath) -> dict[str, _Stored]:
    """The files of a folder that has no list, told apart by size and time of change."""
    found = {}
    for path in place.rglob("*"):
        name, stat = path.relative_to(place).as_posix(), path.stat()
        signs = hashlib.sha256(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
        found[_inside(name)] = _Stored(name, stat.st_size, f"listed-{signs}")
    return found


def _fetch(place: RemotePath, stored: _Stored, cached: Path) -> None:
    """Copy an object to the cache, unless it is there."""
    kept = _kept(stored, cached)
    if kept.is_file():
        return
    kept.parent.mkdir(exist_ok=True)
    source = place / stored.object
    with replaced_file(kept) as partial:
        with source.open() as file, partial.open("wb") as out, reached(source):
            size, digest = _copied(file, out)
        problem = None
        if size != stored.bytes:
            problem = f"has {size:,} bytes, {stored.bytes:,} were uploaded"
        elif _SHA256.fullmatch(stored.digest) and digest != stored.digest:
            problem = "is not what was uploaded (another SHA-256)"
        if problem is not None:
            raise DataError(f"{source} {problem}; upload {place} again.")


def _link(stored: _Stored, target: Path, cached: Path) -> None:
    """Give a file of a copy its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if stored.link is not None:
        target.symlink_to(stored.link)
    else:
        os.link(_kept(stored, cached), target)


def _kept(stored: _Stored, cached: Path) -> Path:
    return cached / "objects" / stored.digest


def _upload(folder: Path, place: RemotePath, before: _List | None) -> None:
    """Upload what has changed, then the list."""
    former = {} if before is None else dict(before.files)
    taken = {one.object for one in former.values()}
    if before is None:
        _write_list(place, _List(False, {}))  # from now on what lies there is ours
    files: dict[str, _Stored] = {}
    for path in track(_files(folder), f"Uploading {place}"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            files[name] = _Stored("", 0, "", _inside(os.readlink(path)))
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if name in former and former[name].digest == digest:
            files[name] = former[name]
            continue
        stored = f"{name}~{digest[:12]}" if name in taken else name
        target = place / stored
        with path.open("rb") as source, target.open("wb") as out, reached(target):
            size, _ = _copied(source, out)
        files[name] = _Stored(stored, size, digest)
    if files == former and before is not None and before.whole:
        return
    now = _read_list(place)
    if now != (before or _List(False, {})):
        raise DataError(
            f"{place} was changed by somebody else meanwhile, and stays as they left it; repeat "
            "the command."
        )
    _write_list(place, _List(True, files))


def _files(folder: Path) -> list[Path]:
    """What is uploaded of a folder: no locks and nothing on its way."""
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink())
        and path.suffix != PARTIAL
        and not path.name.startswith(".")
    )


def _copied(source: BinaryIO, out: BinaryIO) -> tuple[int, str]:
    """Copy a file; its size and SHA-256."""
    size, digest = 0, hashlib.sha256()
    while piece := source.read(_PIECE):
        out.write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _inside(name: str) -> str:
    """A name that stays in its folder.

    Raises:
        ValueError: it leads out of it.
    """
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"it names {name[:80]!r}, which is no file of its folder")
    return name


def _cache_of(place: RemotePath) -> Path:
    """Where copies of what lies at a URL are kept."""
    if given := os.environ.get(CACHE_VARIABLE):
        root = Path(given)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "recsys"
    folder = root / "folders" / hashlib.sha256(str(place).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder
