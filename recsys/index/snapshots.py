"""Snapshots of an index: immutable generations, of which one is served.

```
current.json              {"generation": 12}; replaced in one step
generations/000012/       an index as it was, networks and all
```

Whoever opens the folder opens the generation that is served, and what it has opened stays as it is.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import Count, OutPath, Settings
from recsys.core.durable import PARTIAL, sync_file, sync_folder
from recsys.core.errors import ArtifactError, ConfigError
from recsys.core.folders import FolderKind, check_folder, locked_folder, replaced_folder
from recsys.core.json_files import write_json
from recsys.index.catalogue import StoredIndex
from recsys.index.folder import (
    CURRENT_FILE,
    CURRENT_KIND,
    GENERATIONS,
    REJECTED_FILE,
    generation_folder,
    read_current,
    read_index,
)
from recsys.index.hierarchy.exported import check_stored
from recsys.index.maintain import locked_index
from recsys.index.manifest import INDEX_FILE

_FOLDER = FolderKind(
    "a folder of snapshots of an index", CURRENT_FILE, ("generation",), (f"{GENERATIONS}/*",)
)


@dataclass(frozen=True)
class SnapshotConfig(Settings):
    """What to make a snapshot of.

    Attributes:
        index: the folder of an index.
        out: the folder of its snapshots, which is made where it is absent.
        keep: so many generations are kept beside the one that is served, to go back to.
    """

    index: str = MISSING
    out: OutPath = MISSING
    keep: Count = 3


@dataclass(frozen=True)
class RollbackConfig(Settings):
    """Which snapshot to serve again.

    Attributes:
        index: the folder of snapshots.
        generation: its number; None for the one before the one that is served.
    """

    index: str = MISSING
    generation: Count | None = None


@dataclass(frozen=True)
class Snapshot:
    """What is served now.

    Attributes:
        number: of the generation.
        items: of its index.
        is_new: whether the index was another one before.
        removed: generations that were removed.
    """

    number: int
    items: int
    is_new: bool
    removed: tuple[int, ...] = ()


def make_snapshot(config: SnapshotConfig) -> Snapshot:
    """Make a generation of an index as it is, and serve it.

    Killed at any moment, the former generation is served or the new one. An index that has not
    changed since the generation that is served becomes no new one.

    Raises:
        ArtifactError: the index is damaged.
        ConfigError: ``out`` holds something else, or ``index`` is a folder of snapshots itself.
    """
    out = Path(config.out)
    check_folder(out, _FOLDER, [config.index])
    with locked_index(Path(config.index)) as index, locked_folder(out):
        check_stored(Path(config.index), index)
        check_folder(out, _FOLDER, [config.index])
        if not out.exists() or not any(out.iterdir()):
            with replaced_folder(out) as partial:
                first = generation_folder(partial, 1)
                first.mkdir(parents=True)
                _link(Path(config.index), first)
                _serve(partial, 1)
            return Snapshot(1, len(index), True)
        _clear(out)
        current = read_current(out)
        if _same(Path(config.index), generation_folder(out, current)):
            return Snapshot(current, len(index), False)
        number = 1 + max(_numbers(out))
        with replaced_folder(generation_folder(out, number)) as partial:
            _link(Path(config.index), partial)
        _serve(out, number)
        return Snapshot(number, len(index), True, _remove_old(out, number, config.keep))


def roll_back(config: RollbackConfig) -> Snapshot:
    """Serve a generation again that was served before.

    Raises:
        ArtifactError: it is damaged; what is served stays.
        ConfigError: there is no such generation, or the folder holds no snapshots.
    """
    folder = Path(config.index)
    if not ((folder / CURRENT_FILE).exists() and (folder / GENERATIONS).is_dir()):
        raise ConfigError(
            f"{folder} holds no snapshots; make one with `recsys index snapshot index=… "
            f"out={folder}`."
        )
    with locked_folder(folder):
        known, wanted = _numbers(folder), config.generation
        if wanted is None:  # named, it mends a folder that does not say which is served
            current = read_current(folder)
            wanted = max((one for one in known if one < current), default=0)
        if wanted not in known:
            raise ConfigError(
                f"{folder} has no generation {wanted or 'before the one that is served'}; it has "
                f"{', '.join(map(str, known))}."
            )
        items = len(_whole(generation_folder(folder, wanted)))
        _serve(folder, wanted)
        return Snapshot(wanted, items, True)


def _whole(generation: Path) -> StoredIndex:
    """The index of a generation, if no file of it is missing or damaged."""
    try:
        index = read_index(generation)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename} is missing, so {generation} cannot be served; name another one."
        ) from error
    check_stored(generation, index)
    return index


def _link(index: Path, folder: Path) -> None:
    """The files of an index in another folder: none is ever written into, so they are shared."""
    left = shutil.ignore_patterns(REJECTED_FILE, f"*{PARTIAL}")
    shutil.copytree(index, folder, ignore=left, copy_function=_shared, dirs_exist_ok=True)
    for place in (folder.parent, folder, *(one for one in folder.rglob("*") if one.is_dir())):
        sync_folder(place)


def _shared(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # of another file system, or one without links
        shutil.copy2(source, target)
        with Path(target).open("rb") as file:
            sync_file(file)


def _same(index: Path, generation: Path) -> bool:
    there = generation / INDEX_FILE
    return there.is_file() and there.read_bytes() == (index / INDEX_FILE).read_bytes()


def _serve(folder: Path, number: int) -> None:
    write_json(folder / CURRENT_FILE, CURRENT_KIND, {"generation": number})


def _numbers(folder: Path) -> list[int]:
    """The generations that there are, the oldest first."""
    names = (one.name for one in (folder / GENERATIONS).iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


def _remove_old(folder: Path, current: int, keep: int) -> tuple[int, ...]:
    """Remove all but the newest generations, each in one step: half of one is of no use."""
    others = [one for one in _numbers(folder) if one != current]
    for number in others[:-keep]:
        place = generation_folder(folder, number)
        place.rename(place.with_name(f".{place.name}{PARTIAL}"))
    _clear(folder)
    return tuple(others[:-keep])


def _clear(folder: Path) -> None:
    """Remove what was being made or removed."""
    for gone in (folder / GENERATIONS).glob(f".*{PARTIAL}"):
        shutil.rmtree(gone)
