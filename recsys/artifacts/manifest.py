"""``manifest.json`` of an artifact: what it is, what it eats, and the checksum of every file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from recsys.artifacts.trust import remember, remember_own, require_trusted
from recsys.core.errors import ArtifactError
from recsys.core.folders import FolderKind
from recsys.core.json_files import decode_json, encode_json

FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
#: Where `recsys export` puts an artifact inside a run folder.
ARTIFACT = "artifact"
#: What only `recsys export` writes, and may replace.
ARTIFACT_FOLDER = FolderKind(
    "an exported artifact",
    MANIFEST_FILE,
    ("format_version", "model", "training", "files"),
    ("config.yaml", "*.pt", "*.pt2", "vocabulary/*.parquet", "post_embeddings.parquet"),
)

_KIND = "manifest of an artifact"
_MEND = "export the run again with `recsys export`."


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the manifests of all exported user towers say.

    Attributes:
        model: name of the system.
        created: moment of the export, ISO 8601, UTC.
        environment: git revision, package versions and hardware of the export.
        training: run, checkpoint, step, rule of choice and seed.
        dataset: name, fingerprint and path of the prepared data set.
        inputs: dtypes of what the tower takes.
        output: dtype and shape of the user embedding.
        codes: names that codes among the inputs stand for.
        sizes: bytes before and after quantisation.
        metrics: of the exported tower on the choose split, each with its protocol.
        files: per file of the folder its size in bytes and its SHA-256.
    """

    system: ClassVar[str]

    model: str
    created: str
    environment: dict[str, Any]
    training: dict[str, Any]
    dataset: dict[str, str]
    inputs: dict[str, Any]
    output: dict[str, Any]
    codes: dict[str, list[str]]
    sizes: dict[str, float]
    metrics: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    format_version: int = FORMAT_VERSION

    def save(self, folder: Path, out: Path) -> None:
        """Write ``manifest.json``, and add the artifact to those the user trusts.

        Args:
            folder: where its other files are.
            out: where it will be.
        """
        content = encode_json(_KIND, asdict(self))
        (folder / MANIFEST_FILE).write_bytes(content)
        remember_own(out, content)

    @classmethod
    def open(cls, folder: Path, trust: bool) -> Self:
        """Read ``manifest.json`` of an artifact that is to be loaded.

        Args:
            folder: the artifact.
            trust: whether to load one that is not in the user's list of trusted ones.

        Raises:
            ArtifactError: there is none, it is damaged, of another format version or system, or
                not trusted; or a file is missing, differs, or is not named in it.
        """
        written = _read(folder)
        manifest = cls._parsed(folder, written)
        if not trust:
            require_trusted(folder, written)
        manifest._check_files(folder)
        return manifest

    @classmethod
    def remember(cls, folder: Path) -> Path:
        """Add an artifact to the user's list of trusted ones, and return the list.

        Raises:
            ArtifactError: as ``open``.
            ConfigError: there is no place for a list.
        """
        written = _read(folder)
        manifest = cls._parsed(folder, written)
        manifest._check_files(folder)
        return remember(written, f"{cls.system}, {manifest.created}, from {folder.resolve()}")

    @classmethod
    def _parsed(cls, folder: Path, written: bytes) -> Self:
        path = folder / MANIFEST_FILE
        content = _content(path, written)
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{path} has format version {version}, this release reads version "
                f"{FORMAT_VERSION}; {_MEND}"
            )
        known = {field.name for field in fields(cls)} - {"format_version"}
        if content.get("model") != cls.system:
            raise ArtifactError(
                f"{folder} is an artifact of the system {content.get('model')}, expected one of "
                f"{cls.system}; give the folder of another artifact."
            )
        if set(content) != known:
            different = ", ".join(sorted(set(content) ^ known))
            raise ArtifactError(f"{path} is damaged (fields: {different}); {_MEND}")
        return cls(**content)

    def _check_files(self, folder: Path) -> None:
        """Compare every file's size and checksum."""
        for path in folder.rglob("*"):
            if path.is_symlink():
                raise ArtifactError(
                    f"{path} is a link; an artifact holds its own files: replace it by a copy."
                )
        present = {str(path.relative_to(folder)) for path in _files(folder)}
        for name, expected in self.files.items():
            path = folder / name
            if name not in present:
                raise ArtifactError(f"{path} is missing though the manifest names it; {_MEND}")
            if path.stat().st_size != expected["bytes"]:
                raise ArtifactError(
                    f"{path} has {path.stat().st_size} bytes, the manifest says "
                    f"{expected['bytes']}; {_MEND}"
                )
            if sha256(path) != expected["sha256"]:
                raise ArtifactError(
                    f"{path} is not the file that was exported (another SHA-256); {_MEND}"
                )
        if unknown := sorted(present - set(self.files)):
            raise ArtifactError(
                f"{folder} holds {unknown[0]}, which the manifest does not name; remove it, or "
                f"{_MEND}"
            )


def model_of(folder: Path) -> str:
    """The model that the manifest of an artifact names.

    Raises:
        ArtifactError: there is no manifest, or it is damaged.
    """
    return str(read_manifest(folder).get("model"))


def trained_on(folder: Path) -> Path:
    """The prepared data set that an artifact was trained on, where it lay then.

    Raises:
        ArtifactError: as ``model_of``.
    """
    return Path(read_manifest(folder)["dataset"]["path"])


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of an artifact but the manifest."""
    return {str(path.relative_to(folder)): describe_file(path) for path in _files(folder)}


def describe_file(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def sha256(path: Path) -> str:
    """Checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST_FILE
    )


def read_manifest_if_any(folder: Path) -> dict[str, Any]:
    """As :func:`read_manifest`; empty where there is none."""
    return read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else {}


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of an artifact of whatever system says.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    return _content(folder / MANIFEST_FILE, _read(folder))


def _read(folder: Path) -> bytes:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        why = f"no {MANIFEST_FILE} in it" if folder.is_dir() else "the folder does not exist"
        raise ArtifactError(f"{folder} is no artifact ({why}); {_MEND}")
    return path.read_bytes()


def _content(path: Path, written: bytes) -> dict[str, Any]:
    try:
        return decode_json(_KIND, written)
    except ValueError as error:
        raise ArtifactError(
            f"{path} is damaged or no {_KIND} of this release ({error}); {_MEND}"
        ) from None
