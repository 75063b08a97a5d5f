"""``manifest.json`` of an index of items: what it is, which model it is for, and its files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from recsys.artifacts.manifest import sha256
from recsys.core.durable import replace_file
from recsys.core.errors import ArtifactError
from recsys.core.paths import plain_name
from recsys.index.faiss.kinds import IndexConfig

FORMAT_VERSION = 1
INDEX_FILE = "manifest.json"
METRIC = "cosine"

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
        text = json.dumps(asdict(self), indent=2) + "\n"
        replace_file(folder / INDEX_FILE, text.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``manifest.json`` from ``folder``.

        Raises:
            ArtifactError: there is none, it is damaged, or of another format version.
        """
        path = folder / INDEX_FILE
        if not path.is_file():
            raise ArtifactError(f"{folder} is no index of items (no {INDEX_FILE} in it); {_MEND}")
        try:
            content = json.loads(path.read_text())
            version = content["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged ({error}); {_MEND}") from error
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} has format version {version}, this release reads version "
                f"{FORMAT_VERSION}; {_MEND}"
            )
        if set(content) != {field.name for field in fields(cls)}:
            raise ArtifactError(f"{path} is no manifest of an index of items; {_MEND}")
        try:
            content["config"] = IndexConfig(**content["config"])
            _, _ = map(plain_name, content["files"])
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is damaged ({error}); {_MEND}") from error
        return cls(**content)

    def check_file(self, path: Path) -> None:
        """Compare a file's checksum.

        Raises:
            ArtifactError: it is not what was saved.
        """
        if sha256(path) != self.files[path.name]["sha256"]:
            raise ArtifactError(f"{path} is not the file that was saved (another SHA-256); {_MEND}")
