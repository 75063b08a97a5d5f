"""The folder of an index: saved so that a crash or a reader in between sees the old one or the new.

``manifest.json`` names the other files, whose names carry a number that no earlier save of the
folder had; replacing it is the one step that makes a change visible. Superseded files are removed
after that, so a reader that comes upon a file just removed starts again from the manifest.

A folder of snapshots has indexes in ``generations/<number>/`` and ``current.json``, which says
which of them is served; whoever opens the folder opens that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl

from recsys.artifacts.manifest import describe_file
from recsys.core.disk import named_if_full
from recsys.core.durable import replaced_file, sync_file, sync_folder
from recsys.core.errors import ArtifactError, ConfigError, RecsysError
from recsys.core.folders import FolderKind, check_folder, read_whole, replaced_folder
from recsys.core.json_files import read_json
from recsys.data.contract.parquet import write_frame
from recsys.index.catalogue import StoredIndex
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import METRIC, FaissManifest
from recsys.index.manifest import INDEX_FILE, read_index_manifest

#: Rows that the last build or addition left out, with their reasons.
REJECTED_FILE = "rejected.parquet"
#: Of an index of a tree: the networks that it is of, as `recsys export` wrote them.
ARTIFACT = "artifact"
#: What only `recsys index` writes, and may replace.
INDEX_FOLDER = FolderKind(
    "an index of items",
    INDEX_FILE,
    ("format_version", "metric", "model", "files"),
    ("index.*.faiss", "posts.*.parquet", "items.*.parquet", f"{ARTIFACT}/*", REJECTED_FILE),
)

#: Of a folder of snapshots.
GENERATIONS, CURRENT_FILE = "generations", "current.json"
CURRENT_KIND = "which generation of an index is served"

#: How often a reader starts again when a writer removes files between its steps.
_OPEN_ATTEMPTS = 10

Read = TypeVar("Read")


def save_index(index: StoredIndex, folder: Path) -> None:
    """Write an index into ``folder``, locked, in the place of the one that is there.

    Raises:
        ConfigError: the folder holds other things than an index, or one of another kind.
        RecsysError: the file system is full; nothing has changed.
    """
    check_folder(folder, INDEX_FOLDER)
    if not (folder / INDEX_FILE).exists():
        with replaced_folder(folder) as begun:
            write_index(index, begun)
        return
    if read_index_manifest(folder)["metric"] != index.manifest.metric:
        raise ConfigError(
            f"{folder} holds an index of another kind; give another out=, or remove it yourself."
        )
    former = _numbered_files(index, folder)
    with named_if_full(folder), _removed_if_unnamed(index, folder):
        write_index(index, folder, 1 + max(former.values(), default=0))
    for path in former:
        path.unlink()


def write_index(index: StoredIndex, folder: Path, number: int = 1) -> None:
    """Write the files of an index, and last the manifest that names them."""
    paths = index.write(folder, number)
    for path in paths:
        with path.open("rb") as file:
            sync_file(file)
    sync_folder(folder)
    files = {path.name: describe_file(path) for path in paths}
    index.manifest = replace(index.manifest, files=files)
    index.manifest.save(folder)


@contextmanager
def _removed_if_unnamed(index: StoredIndex, folder: Path) -> Iterator[None]:
    """Remove files that the block has begun where it fails, for no manifest names them."""
    try:
        yield
    except BaseException:
        named = read_index_manifest(folder)["files"]
        for path in _numbered_files(index, folder):
            if path.name not in named:
                path.unlink()
        raise


def load_index(folder: Path | str) -> StoredIndex:
    """Open the index in ``folder`` after checking its format version and checksums.

    Raises:
        ArtifactError: the folder holds no index, or a file of it is not what was saved.
    """
    return read_served(Path(folder), read_index)


def read_served(folder: Path, read: Callable[[Path], Read]) -> Read:
    """What ``read`` makes of the folder of an index; read again where it was changed meanwhile.

    Args:
        folder: of the index, or of its snapshots.
        read: of the folder of an index.

    Raises:
        ArtifactError: a file is missing, or what ``read`` raises.
    """
    for _ in range(_OPEN_ATTEMPTS):
        place = served_folder(folder)
        try:
            return read_whole(place, partial(read, place))
        except FileNotFoundError as error:
            missing = error.filename
        except RecsysError:
            if served_folder(folder) == place:
                raise
    raise ArtifactError(
        f"{missing} is missing though the manifest names it; build the index again with "
        "`recsys index build`."
    )


def served_folder(folder: Path) -> Path:
    """The folder of the index itself: of snapshots that of the generation that is served.

    Raises:
        ArtifactError: what says which is damaged.
    """
    if not (folder / CURRENT_FILE).exists():
        return folder
    return generation_folder(folder, read_current(folder))


def read_current(folder: Path) -> int:
    """The number of the generation that a folder of snapshots serves.

    Raises:
        ArtifactError: what says so is damaged.
    """
    mend = "name one with `recsys index rollback generation=…`, or make a snapshot elsewhere."
    content = read_json(folder / CURRENT_FILE, CURRENT_KIND, ArtifactError, mend)
    return int(content["generation"])


def generation_folder(folder: Path, number: int) -> Path:
    """The folder of a snapshot."""
    return folder / GENERATIONS / f"{number:06d}"


def read_index(folder: Path) -> StoredIndex:
    """The index in a folder that is no folder of snapshots.

    Raises:
        ArtifactError: as ``load_index``.
        FileNotFoundError: a file is missing, or a writer has just removed it.
    """
    content = read_index_manifest(folder)
    if content["metric"] == METRIC:
        manifest = FaissManifest.of(folder / INDEX_FILE, content)
        manifest.check_files(folder)
        return ItemIndex.read(folder, manifest)
    # what only models with a tree need
    from recsys.index.hierarchy.item_index import HierarchyIndex, HierarchyManifest

    of_tree = HierarchyManifest.of(folder / INDEX_FILE, content)
    of_tree.check_files(folder)
    return HierarchyIndex.read(folder, of_tree)


def _numbered_files(index: StoredIndex, folder: Path) -> dict[Path, int]:
    return {
        path: int(match[1])
        for path in folder.iterdir()
        for kind in index.manifest.file_names
        if (match := kind.fullmatch(path.name))
    }


def write_rejected(folder: Path, rejected: pl.DataFrame) -> None:
    """Write what a build or an addition left out, in the place of what an earlier one did."""
    if len(rejected):
        with replaced_file(folder / REJECTED_FILE) as begun:
            write_frame(begun, rejected)
    else:
        (folder / REJECTED_FILE).unlink(missing_ok=True)
