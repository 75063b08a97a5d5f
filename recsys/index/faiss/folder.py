"""The folder of an index: saved so that a crash or a reader in between sees the old one or the new.

``manifest.json`` names the two other files, whose names carry a number that no earlier save of the
folder had; replacing it is the one step that makes a change visible. Superseded files are removed
after that, so a reader that comes upon a file just removed starts again from the manifest.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import faiss
import polars as pl

from recsys.artifacts.manifest import describe_file
from recsys.core.durable import sync_file, sync_folder
from recsys.core.errors import ArtifactError
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.faiss.manifest import TABLE_FILE, VECTORS_FILE, IndexManifest

#: How often a reader starts again when a writer removes files between its steps.
_OPEN_ATTEMPTS = 10


def save_index(index: ItemIndex, folder: Path) -> None:
    """Write an index into ``folder``, in the place of the one that is there.

    Raises:
        ArtifactError: the folder holds other things than an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    former = _numbered_files(folder)
    if not former and any(folder.iterdir()):
        raise ArtifactError(
            f"{folder} holds files that are no index of items; give out= an empty or new folder."
        )
    number = 1 + max(former.values(), default=0)
    vectors, table = folder / f"index.{number}.faiss", folder / f"posts.{number}.parquet"
    faiss.write_index(index.index, str(vectors))
    index.items.write_parquet(table)
    for path in (vectors, table):
        with path.open("rb") as file:
            sync_file(file)
    sync_folder(folder)
    files = {path.name: describe_file(path) for path in (vectors, table)}
    index.manifest = replace(index.manifest, files=files)
    index.manifest.save(folder)
    for path in former:
        path.unlink()


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
        index = faiss.read_index(str(folder / vectors))
    except RuntimeError as error:
        if not (folder / vectors).exists():
            raise FileNotFoundError(2, "removed by a writer", str(folder / vectors)) from error
        raise ArtifactError(
            f"{folder / vectors} cannot be read by FAISS {faiss.__version__}; build the index "
            "again with `recsys index build`."
        ) from error
    return ItemIndex(index, pl.read_parquet(io.BytesIO((folder / table).read_bytes())), manifest)


def _numbered_files(folder: Path) -> dict[Path, int]:
    kinds = (VECTORS_FILE, TABLE_FILE)
    return {
        path: int(match[1])
        for path in folder.iterdir()
        for kind in kinds
        if (match := kind.fullmatch(path.name))
    }
