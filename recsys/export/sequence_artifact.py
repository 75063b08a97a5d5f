"""The artifact of a sequence model's user tower: a history of posts → a user embedding.

```
manifest.json           what it is, what it eats, how near int8 is to float, checksums
config.yaml             the run's resolved configuration
user_tower.pt           TorchScript, float32
user_tower_int8.pt      TorchScript, 8-bit weights
```
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from recsys.data.folder import locked_folder, replaced_folder
from recsys.data.manifest import DatasetManifest
from recsys.data.post_embeddings import embeddings_file
from recsys.data.schema import ACTION_TYPES, FeatureKind, FeatureSide
from recsys.data.sequences import SequenceBatch
from recsys.errors import ArtifactError, DataError
from recsys.export.manifest import Manifest, describe_files, sha256
from recsys.export.sequence_tower import agreement, quantized_tower, weight_bytes
from recsys.export.torchscript import load_tower, script_tower
from recsys.nn.sequence_tower import SequenceTower
from recsys.training.environment import describe_environment

CONFIG_FILE = "config.yaml"

#: Largest difference of a cosine from 1 between the float tower and its compiled form.
_ROUNDING = 1e-5
#: An int8 tower whose embeddings point further away than this from the float ones is not written.
_LOWEST_MEAN_COSINE = 0.9

#: A batch and the embeddings of its posts [E, W] → user embeddings [B, W].
Embed = Callable[[SequenceBatch, Tensor], Tensor]
#: Metrics of the choose split, given how users are embedded: name → value and protocol.
Measure = Callable[[Embed], Mapping[str, Mapping[str, Any]]]


class Precision(StrEnum):
    """The two forms of an exported tower."""

    FLOAT = "float"
    INT8 = "int8"


TOWER_FILES = {Precision.FLOAT: "user_tower.pt", Precision.INT8: "user_tower_int8.pt"}

INPUTS = {
    "post_embedding": "float32",
    "action_type": "int64",
    "surface": "int64",
    "timestamp": "int64",
    "lengths": "int64",
    "request_time": "int64",
    "user_categorical": "int64",
    "user_dense": "float32",
}


@dataclass(frozen=True, kw_only=True)
class SequenceManifest(Manifest):
    """The description of NxtPost's exported user tower.

    Attributes:
        post_embeddings: those it was trained on: ``model``, the identity of what made them, and
            ``width``, which an index it searches must have too; and ``path``.
        sequences: what counts as an engagement (``SequenceConfig``).
        max_length: newest events it looks at.
        features: names of the columns of ``user_categorical`` and ``user_dense``.
        agreement: of the int8 tower's embeddings with the float tower's on some histories.
    """

    system: ClassVar[str] = "nxtpost"

    post_embeddings: dict[str, Any]
    sequences: dict[str, Any]
    max_length: int
    features: dict[str, list[str]]
    agreement: dict[str, float]


@dataclass(frozen=True)
class SequenceExport:
    """What is said of a tower in its manifest, and what it is checked with.

    Attributes:
        post_embeddings: file or folder of those it was trained on.
        training: run, checkpoint, step, rule of choice and seed.
        dataset_path: of the prepared data set.
        sequences: what counts as an engagement (``asdict`` of a ``SequenceConfig``).
        config_file: the run's resolved configuration.
        examples: histories, with the embeddings [E, W] of their posts, on which the exported
            towers are compared with the trained one.
        measure: metrics of the choose split; None measures none.
    """

    post_embeddings: str
    training: dict[str, Any]
    dataset_path: Path
    sequences: dict[str, Any]
    config_file: Path
    examples: tuple[SequenceBatch, Tensor]
    measure: Measure | None = None


@dataclass(frozen=True)
class SequenceArtifact:
    """An exported user tower.

    Attributes:
        folder: where it lies.
        manifest: what it is.
        precision: which of its two forms ``embed`` calls.
        tower: the TorchScript module.
    """

    folder: Path
    manifest: SequenceManifest
    precision: Precision
    tower: torch.jit.ScriptModule

    @torch.inference_mode()
    def embed(self, batch: SequenceBatch, post_embedding: Tensor) -> Tensor:
        """User embeddings [B, W], L2-normalised, of a batch with the embeddings of its posts.

        As in ``Artifact.embed`` the graph is run as it was exported.
        """
        with torch.jit.optimized_execution(False):
            return _embed(self.tower, batch, post_embedding)


def export_sequence_tower(
    tower: SequenceTower, dataset: DatasetManifest, folder: Path, export: SequenceExport
) -> SequenceManifest:
    """Write the artifact of a trained tower; one that is there is replaced in one step.

    Returns:
        Its manifest, with metrics ``export/val/float/<name>`` and ``export/val/int8/<name>`` where
        they were measured.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
    """
    tower = tower.eval()
    exported = {Precision.FLOAT: tower, Precision.INT8: quantized_tower(tower)}
    with locked_folder(folder), replaced_folder(folder) as partial:
        shutil.copy(export.config_file, partial / CONFIG_FILE)
        for precision, module in exported.items():
            torch.jit.save(script_tower(module), partial / TOWER_FILES[precision])
        manifest = _manifest(tower, dataset, export, partial)
        artifacts = {p: _open(partial, manifest, p) for p in Precision}
        manifest = replace(manifest, agreement=_check(tower, artifacts, export.examples))
        if export.measure is not None:
            manifest = replace(manifest, metrics=_measured(artifacts, export.measure))
        manifest = replace(manifest, files=describe_files(partial))
        manifest.save(partial)
    return manifest


def load_sequence_artifact(path: Path | str, precision: str = Precision.FLOAT) -> SequenceArtifact:
    """Open an artifact after checking its format version, system and every checksum.

    Raises:
        ArtifactError: the folder is no such artifact, or a file of it is not what was exported.
    """
    folder = Path(path)
    manifest = SequenceManifest.load(folder)
    manifest.check_files(folder)
    return _open(folder, manifest, Precision(precision))


def embeddings_model(path: Path | str) -> str:
    """The identity of what made post embeddings, told from their file: its SHA-256.

    A file that grew has another one; ``same_model`` says that its maker is the same.

    Raises:
        DataError: there is no such file.
    """
    file = embeddings_file(path)
    if not file.is_file():
        raise DataError(f"{file} is missing; give a file of post embeddings.")
    return sha256(file)


def user_features(dataset: DatasetManifest) -> dict[str, list[str]]:
    """Names of the columns of ``user_categorical`` and ``user_dense``."""
    return {
        f"user_{kind}": [feature.name for feature in dataset.select(FeatureSide.USER, kind)]
        for kind in FeatureKind
    }


def _open(folder: Path, manifest: SequenceManifest, precision: Precision) -> SequenceArtifact:
    tower = load_tower(folder / TOWER_FILES[precision], manifest)
    return SequenceArtifact(folder, manifest, precision, tower)


def _embed(tower: Callable[..., Any], batch: SequenceBatch, post_embedding: Tensor) -> Tensor:
    embedding = tower(
        post_embedding,
        batch.action_type,
        batch.surface,
        batch.timestamp,
        batch.lengths,
        batch.request_time,
        batch.user_categorical,
        batch.user_dense,
    )
    return cast(Tensor, embedding)


def _check(
    tower: SequenceTower,
    artifacts: Mapping[Precision, SequenceArtifact],
    examples: tuple[SequenceBatch, Tensor],
) -> dict[str, float]:
    """What was written, opened again, against the trained tower."""
    with torch.inference_mode():
        trained = _embed(tower, *examples)
    there = trained.norm(dim=1) > 0  # a user of whom nothing is known may have none
    near = {
        precision: agreement(artifact.embed(*examples)[there], trained[there])
        for precision, artifact in artifacts.items()
    }
    if not near[Precision.FLOAT]["lowest_cosine"] >= 1 - _ROUNDING:
        raise ArtifactError(
            "The compiled user tower does not agree with the trained one (lowest cosine "
            f"{near[Precision.FLOAT]['lowest_cosine']:.6f}); this version of torch compiles it "
            "wrongly: export with another one."
        )
    if not near[Precision.INT8]["mean_cosine"] >= _LOWEST_MEAN_COSINE:
        raise ArtifactError(
            "At 8 bits the user embeddings have a mean cosine of "
            f"{near[Precision.INT8]['mean_cosine']:.3f} with the trained ones, below "
            f"{_LOWEST_MEAN_COSINE}; the tower's weights are too large to be quantised: look at "
            "its training loss and export an earlier checkpoint."
        )
    return near[Precision.INT8]


def _measured(
    artifacts: Mapping[Precision, SequenceArtifact], measure: Measure
) -> dict[str, dict[str, Any]]:
    return {
        f"export/val/{precision}/{name}": dict(metric)
        for precision, artifact in artifacts.items()
        for name, metric in measure(artifact.embed).items()
    }


def _manifest(
    tower: SequenceTower, dataset: DatasetManifest, export: SequenceExport, folder: Path
) -> SequenceManifest:
    environment = describe_environment()
    del environment["command"]
    width = export.examples[1].shape[1]
    sizes = {
        f"{precision}_file_bytes": float((folder / name).stat().st_size)
        for precision, name in TOWER_FILES.items()
    }
    return SequenceManifest(
        model=SequenceManifest.system,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        training=export.training,
        dataset={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "path": str(export.dataset_path),
        },
        inputs=INPUTS,
        output={"dtype": "float32", "shape": ["B", width], "normalised": True},
        codes={"action_type": list(ACTION_TYPES), "surface": list(dataset.surfaces)},
        sizes={"weights_float32_bytes": float(weight_bytes(tower)), **sizes},
        metrics={},
        files={},
        post_embeddings={
            "model": embeddings_model(export.post_embeddings),
            "width": width,
            "path": export.post_embeddings,
        },
        sequences=export.sequences,
        max_length=tower.max_length,
        features=user_features(dataset),
        agreement={},
    )
