"""``manifest.json`` of an index of items: what it is, which model it is for, and its files."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from recsys.artifacts.manifest import sha256
from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json
from recsys.index.faiss.kinds import IndexConfig

FORMAT_VERSION = 2
INDEX_FILE = "manifest.json"
METRIC = "cosine"
#: The files of an index: FAISS' own, and the table of its items.
VECTORS_FILE = re.compile(r"index\.(\d+)\.faiss")
TABLE_FILE = re.compile(r"posts\.(\d+)\.parquet")

_KIND = "manifest of an index"
_MEND = "build the index again with `recsys index build`."


@dataclass(frozen=True)
class IndexManifest:
    """The description of an index.

    Attributes:
        width: W of the embeddings.
        metric: ``cosine``: the inner product of L2-normalised embeddings.
        model: identity (SHA-256) of what made the item embeddings; user embeddings may be compared
            with them only if their model was trained on the same.
        config: kind and sizes, resolved.
        posts: items that can be found.
        tombstones: removed items that HNSW still holds.
        next_slot: number that the next item gets.
        created: moment the index was built, ISO 8601, UTC.
        changed: moment of the last change.
        files: per file its size in bytes and its SHA-256, written by ``save``.
    """

    width: int
    metric: str
    model: str
    config: IndexConfig
    posts: int
    tombstones: int
    next_slot: int
    created: str
    changed: str
    files: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` in one atomic step: from then on the index is what it says."""
        write_json(folder / INDEX_FILE, _KIND, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``manifest.json`` from ``folder``.

        Raises:
            ArtifactError: there is none, it is damaged, or of another format version.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise ArtifactError(f"{folder} is no index of items (no {INDEX_FILE} in it); {_MEND}")
        content = read_json(path, _KIND, ArtifactError, _MEND)
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} has format version {version}, this release reads version "
                f"{FORMAT_VERSION}; {_MEND}"
            )
        if set(content) != {field.name for field in fields(cls)}:
            raise ArtifactError(f"{path} is no manifest of an index of items; {_MEND}")
        names = sorted(content["files"])
        kinds = (VECTORS_FILE, TABLE_FILE)
        if len(names) != 2 or not all(map(re.Pattern.fullmatch, kinds, names)):
            raise ArtifactError(
                f"{path} names other files than the two of an index in its folder "
                f"({', '.join(names)}); {_MEND}"
            )
        return cls(**{**content, "config": IndexConfig(**content["config"])})

    def check_file(self, path: Path) -> None:
        """Compare a file's checksum.

        Raises:
            ArtifactError: it is not what was saved.
        """
        if sha256(path) != self.files[path.name]["sha256"]:
            raise ArtifactError(f"{path} is not the file that was saved (another SHA-256); {_MEND}")
