"""``manifest.json`` of an index of items: what it is, which model it is for, and its files."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from recsys.artifacts.manifest import sha256
from recsys.core.errors import ArtifactError
from recsys.core.json_files import read_json, write_json

FORMAT_VERSION = 2
INDEX_FILE = "manifest.json"

_KIND = "manifest of an index"
_MEND = "build the index again with `recsys index build`."


@dataclass(frozen=True, kw_only=True)
class IndexManifest:
    """What the manifests of all indexes say.

    Attributes:
        metric: by what items are found, which tells one kind of index from the other.
        model: identity (SHA-256) of what made the item embeddings; what is compared with them must
            be of the same.
        width: W of the embeddings.
        posts: items that can be found.
        created: moment the index was built, ISO 8601, UTC.
        changed: moment of the last change.
        files: per file its size in bytes and its SHA-256, written by ``save``.
    """

    #: Names of its files, each with the number of a save, in the order of the alphabet.
    file_names: ClassVar[tuple[re.Pattern[str], ...]]

    metric: str
    model: str
    width: int
    posts: int
    created: str
    changed: str
    files: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` in one atomic step: from then on the index is what it says."""
        write_json(folder / INDEX_FILE, _KIND, asdict(self))

    @classmethod
    def of(cls, path: Path, content: dict[str, Any]) -> Self:
        """The manifest of what a file says.

        Raises:
            ArtifactError: it says something else.
        """
        if set(content) != {field.name for field in fields(cls)}:
            raise ArtifactError(f"{path} is no manifest of an index of items; {_MEND}")
        names = sorted(content["files"])
        if len(names) != len(cls.file_names) or not all(
            map(re.Pattern.fullmatch, cls.file_names, names)
        ):
            raise ArtifactError(
                f"{path} names other files than those of an index in its folder "
                f"({', '.join(names)}); {_MEND}"
            )
        return cls(**content)

    def check_files(self, folder: Path) -> None:
        """Compare the checksums of the files in a folder.

        Raises:
            ArtifactError: one is not what was saved.
            FileNotFoundError: one is missing.
        """
        for name, saved in self.files.items():
            if sha256(folder / name) != saved["sha256"]:
                raise ArtifactError(
                    f"{folder / name} is not the file that was saved (another SHA-256); {_MEND}"
                )


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """What ``manifest.json`` in ``folder`` says.

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
    return content
