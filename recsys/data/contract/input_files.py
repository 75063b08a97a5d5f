"""The files a data set was prepared from, known by their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.core.location import RemotePath
from recsys.core.progress import track

INPUTS_FILE = "inputs.json"

_KIND = "list of input files"


@dataclass(frozen=True)
class InputFile:
    """A file as it was read.

    Attributes:
        name: path below the folder that all files share, which may be another on another machine.
        size: in bytes.
        modified: time of its last change, in ns.
        digest: BLAKE2b of its content, 16 bytes in hexadecimal; of an object at a URL ``etag:`` and
            what its store says of the content, which need not be read for it.
        table: whether it is a table of items or users, not the log.
        generation: 0 for a file that a data set was first prepared from, n for one that its n-th
            append has added.
    """

    name: str
    size: int
    modified: int
    digest: str
    table: bool = False
    generation: int = 0


def describe_files(paths: Sequence[Path], known: Iterable[InputFile]) -> tuple[InputFile, ...]:
    """Describe files, reading those that are not ``known`` by name, size and time of change.

    Raises:
        DataError: a file cannot be read.
    """
    if not paths:
        return ()
    digests = {(file.name, file.size, file.modified): file.digest for file in known}
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    marks = {path: _mark(path, shared) for path in paths}
    unknown = [path for path in paths if marks[path] not in digests]
    if unknown:
        for path in track(unknown, "Reading input files"):
            digests[marks[path]] = _digest(path)
    return tuple(InputFile(*marks[path], digests[marks[path]]) for path in paths)


def are_known(files: Sequence[InputFile], known: Sequence[InputFile]) -> bool:
    """Whether files hold what a data set has: all files of some of its generations, nothing else.

    So a data set is found again by the files it was first prepared from, by those added later, and
    by all of them; half of the files that were prepared together are another data set. Tables of
    items and users may be those of any generation.
    """
    given = {file.digest for file in files}
    log = [file for file in known if not file.table]
    begun = {file.generation for file in log if file.digest in given}
    complete = {file.digest for file in log if file.generation in begun}
    tables = {file.digest for file in known if file.table}
    return bool(complete) and complete <= given <= complete | tables


def merged_files(
    files: Sequence[InputFile], known: Sequence[InputFile], generation: int
) -> tuple[InputFile, ...]:
    """The files of a data set, those given as they lie now; new ones are of ``generation``."""
    generations = {file.digest: file.generation for file in known}
    given = {file.digest for file in files}
    now = (replace(one, generation=generations.get(one.digest, generation)) for one in files)
    return (*(one for one in known if one.digest not in given), *now)


def describe_frame(chunks: Iterable[pl.DataFrame]) -> InputFile:
    """Describe a log that is in memory, by the values of its chunks in their order.

    They are hashed by polars, of which another version may find another digest.
    """
    digest, rows = hashlib.blake2b(digest_size=16), 0
    for chunk in chunks:
        rows += chunk.height
        for column in chunk.iter_columns():
            digest.update(f"{column.name} {column.dtype}".encode())
            digest.update(column.hash(seed=0).to_numpy().tobytes())
    return InputFile("frame", rows, 0, digest.hexdigest())


def load_input_files(folder: Path) -> tuple[InputFile, ...]:
    """What ``save_input_files`` has written to ``folder``; nothing where it was never.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / INPUTS_FILE
    if not path.is_file():
        return ()
    content = read_json(path, _KIND, DataError, "remove it, and the input files are read again.")
    return tuple(InputFile(**one) for one in content["files"])


def save_input_files(files: Sequence[InputFile], folder: Path) -> None:
    """Write ``inputs.json`` into ``folder``, in one step."""
    write_json(folder / INPUTS_FILE, _KIND, {"files": [asdict(file) for file in files]})


def _mark(path: Path, shared: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return path.relative_to(shared).as_posix(), stat.st_size, stat.st_mtime_ns


def _digest(path: Path) -> str:
    if isinstance(path, RemotePath) and (etag := path.etag) is not None:
        return f"etag:{etag}"
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
