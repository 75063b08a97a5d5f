"""Whether every file of a prepared data set is what was written.

Opening a data set compares sizes and small files; here content is compared, which takes as long as
reading it. So what was found right is noted in ``checked.json``, and read again only where a file
was replaced, changed or copied since, or where somebody asks for it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.core.checksums import FileMark, is_partial
from recsys.core.errors import DataError
from recsys.core.json_files import read_json, write_json
from recsys.core.progress import track
from recsys.data.contract.manifest import PREPARE_AGAIN
from recsys.data.stores.counters.build import COUNTERS
from recsys.data.stores.dataset import REQUESTS, TIMELINES, PreparedDataset
from recsys.data.stores.derived import CONTENT_CLUSTERS
from recsys.data.stores.engagements.build import SEQUENCES
from recsys.data.stores.requests import request_marks
from recsys.data.stores.timelines.layout import timeline_marks

if TYPE_CHECKING:
    from recsys.core.engines import Engine

CHECKED_FILE = "checked.json"

_KIND = "list of checked files"


@dataclass(frozen=True)
class Checked:
    """What was compared.

    Attributes:
        files: number of files.
        bytes: their size in all.
        bytes_read: of those that were read, the others being as when they were found right.
    """

    files: int
    bytes: int
    bytes_read: int


def open_checked(path: Path | str) -> PreparedDataset:
    """Open a data set for a command that computes with it, after :func:`check_dataset`.

    Raises:
        DataError: ``path`` is no prepared data set, or a file of it is not what was written.
    """
    dataset = PreparedDataset.open(path)
    check_dataset(dataset)
    return dataset


def check_dataset(
    dataset: PreparedDataset, *, anew: bool = False, engine: Engine | None = None
) -> Checked:
    """Compare the size and content of every file with what was written.

    Args:
        dataset: the data set.
        anew: read also the files that are, by size, time of change and place on the disk, as when
            they were found right.
        engine: reads several files at a time; None: this process one after the other.

    Raises:
        DataError: a file is missing or is not what was written.
    """
    marks = _marks(dataset)
    known = {} if anew else _found_right(dataset.path)
    found: dict[str, list[int]] = {}
    unread = {}
    for path, mark in marks.items():
        name = str(path.relative_to(dataset.path))
        found[name] = _signs(path, mark)
        if known.get(name) != found[name]:
            unread[path] = mark
    each = map if engine is None else engine.map
    problems = each(_problem, unread.items())
    compared = track(problems, "Comparing checksums", len(unread)) if unread else ()
    for path, problem in zip(unread, compared, strict=True):
        if problem:
            raise DataError(f"{path} {problem}; {_mend(path, dataset.path)}")
    if unread or anew:
        with suppress(OSError):  # where it cannot be written to, it is read each time
            write_json(dataset.path / CHECKED_FILE, _KIND, {"files": found})
    return Checked(
        len(marks),
        sum(mark.bytes for mark in marks.values()),
        sum(mark.bytes for mark in unread.values()),
    )


def _marks(dataset: PreparedDataset) -> dict[Path, FileMark]:
    """Every file that is read, as it was written."""
    marks = {dataset.path / name: mark for name, mark in dataset.manifest.files.items()}
    marks |= request_marks(dataset.path / REQUESTS)
    if is_partial(dataset.path):  # what is copied later is compared with its checksum then
        marks = {path: mark for path, mark in marks.items() if path.exists()}
    return (
        marks
        | timeline_marks(dataset.path / TIMELINES)
        | SEQUENCES.marks(dataset.path)
        | COUNTERS.marks(dataset.path)
        | CONTENT_CLUSTERS.marks(dataset.path)
    )


def _problem(file: tuple[Path, FileMark]) -> str | None:
    """What is wrong with the content of a file; None where nothing is."""
    path, mark = file
    return mark.problem(path)


def _signs(path: Path, mark: FileMark) -> list[int]:
    """What changes where a file is replaced, written to or copied."""
    if problem := mark.size_problem(path):
        raise DataError(f"{path} {problem}; {PREPARE_AGAIN}")
    stat = path.stat()
    return [mark.crc32, stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _found_right(folder: Path) -> dict[str, list[int]]:
    try:
        content = read_json(folder / CHECKED_FILE, _KIND, DataError, "")
    except DataError:
        return {}  # every file is read then
    files: dict[str, list[int]] = content["files"]
    return files


def _mend(path: Path, dataset: Path) -> str:
    derived = (SEQUENCES, COUNTERS, CONTENT_CLUSTERS)
    if any(path.is_relative_to(dataset / kind.folder) for kind in derived):
        return f"remove {path.parent} and it is built anew."
    return f"restore it from a copy, or {PREPARE_AGAIN}"
