"""The folder of an index: saved so that a crash or a reader in between sees the old one or the new.

``manifest.json`` names the two other files, whose names carry a number that no earlier save of the
folder had; replacing it is the one step that makes a change visible. Superseded files are removed
after that, so a reader that comes upon a file just removed starts again from the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import faiss

from recsys.artifacts.manifest import describe_file
from recsys.core.disk import named_if_full
from recsys.core.durable import sync_file, sync_folder
from recsys.core.errors import ArtifactError
from recsys.core.folders import FolderKind, check_folder, replaced_folder
from recsys.data.contract.parquet import read_parquet, write_frame
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.kinds import check_kind
from recsys.index.faiss.manifest import INDEX_FILE, TABLE_FILE, VECTORS_FILE, IndexManifest

#: Rows that the last build or addition left out, with their reasons.
REJECTED_FILE = "rejected.parquet"
#: What only `recsys index` writes, and may replace.
INDEX_FOLDER = FolderKind(
    "an index of items",
    INDEX_FILE,
    ("format_version", "metric", "model", "files"),
    ("index.*.faiss", "posts.*.parquet", REJECTED_FILE),
)

#: A file of somebody else may say that its lists lie in another one, which FAISS would then open to
#: write into; ``check_kind`` refuses such an index once it is read.
_FLAGS = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR
#: How often a reader starts again when a writer removes files between its steps.
_OPEN_ATTEMPTS = 10


def save_index(index: ItemIndex, folder: Path) -> None:
    """Write an index into ``folder``, locked, in the place of the one that is there.

    Raises:
        ConfigError: the folder holds other things than an index.
        RecsysError: the file system is full; nothing has changed.
    """
    check_folder(folder, INDEX_FOLDER)
    if not (folder / INDEX_FILE).exists():
        with replaced_folder(folder) as partial:
            _write(index, partial)
        return
    former = _numbered_files(folder)
    with named_if_full(folder), _removed_if_unnamed(folder):
        _write(index, folder, 1 + max(former.values(), default=0))
    for path in former:
        path.unlink()


def _write(index: ItemIndex, folder: Path, number: int = 1) -> None:
    vectors, table = folder / f"index.{number}.faiss", folder / f"posts.{number}.parquet"
    faiss.write_index(index.index, str(vectors))
    write_frame(table, index.items)
    for path in (vectors, table):
        with path.open("rb") as file:
            sync_file(file)
    sync_folder(folder)
    files = {path.name: describe_file(path) for path in (vectors, table)}
    index.manifest = replace(index.manifest, files=files)
    index.manifest.save(folder)


@contextmanager
def _removed_if_unnamed(folder: Path) -> Iterator[None]:
    """Remove files that the block has begun where it fails, for no manifest names them."""
    try:
        yield
    except BaseException:
        named = IndexManifest.load(folder).files
        for path in _numbered_files(folder):
            if path.name not in named:
                path.unlink()
        raise


def load_index(folder: Path | str) -> ItemIndex:
    """Open the index in ``folder`` after checking its format version and checksums.

    Raises:
        ArtifactError: the folder holds no index, or a file of it is not what was saved.
    """
    folder = Path(folder)
    for _ in range(_OPEN_ATTEMPTS):
        manifest = IndexManifest.load(folder)
        try:
            return _read(folder, manifest)
        except FileNotFoundError as error:
            missing = error.filename
    raise ArtifactError(
        f"{missing} is missing though the manifest names it; build the index again with "
        "`recsys index build`."
    )


def _read(folder: Path, manifest: IndexManifest) -> ItemIndex:
    for name in manifest.files:
        manifest.check_file(folder / name)
    vectors, table = sorted(manifest.files)
    try:
        index = faiss.read_index(str(folder / vectors), _FLAGS)
    except RuntimeError as error:
        if not (folder / vectors).exists():
            raise FileNotFoundError(2, "removed by a writer", str(folder / vectors)) from error
        raise ArtifactError(
            f"{folder / vectors} cannot be read by FAISS {faiss.__version__}; build the index "
            "again with `recsys index build`."
        ) from error
    check_kind(index, manifest.config, manifest.width, folder / vectors)
    return ItemIndex(index, read_parquet(folder / table), manifest)


def _numbered_files(folder: Path) -> dict[Path, int]:
    kinds = (VECTORS_FILE, TABLE_FILE)
    return {
        path: int(match[1])
        for path in folder.iterdir()
        for kind in kinds
        if (match := kind.fullmatch(path.name))
    }
