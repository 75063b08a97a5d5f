"""Writing the artifact of a tower over sequences: float and int8, checked against the trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.artifacts.manifest import ARTIFACT_FOLDER, describe_files
from recsys.artifacts.quantisation import agreement, quantized_tower, weight_bytes
from recsys.artifacts.sequence_tower import (
    MANIFESTS,
    TOWER_FILES,
    Embed,
    Precision,
    SequenceTowerArtifact,
    SequenceTowerManifest,
    embed_with,
    embeddings_model,
    open_tower,
    user_features,
)
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.core.environment import describe_environment
from recsys.core.errors import ArtifactError
from recsys.core.folders import made_folder
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.manifest import DatasetManifest

CONFIG_FILE = "config.yaml"

#: Largest difference of a cosine from 1 between the float tower and its compiled form.
_ROUNDING = 1e-5
#: An int8 tower whose embeddings point further away than this from the float ones is not written.
_LOWEST_MEAN_COSINE = 0.9

#: Metrics of the choose split, given how users are embedded: name → value and protocol.
Measure = Callable[[Embed], Mapping[str, Mapping[str, Any]]]

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
#: Further ones, of a tower that reads published user embeddings.
PUBLISHED_INPUTS = {"published": "float32", "has_published": "bool"}


@dataclass(frozen=True)
class SequenceExport:
    """What is said of a tower in its manifest, and what it is checked with.

    Attributes:
        post_embeddings: file or folder of those it was trained on; or the name of the file in the
            artifact that ``write_items`` writes.
        training: run, checkpoint, step, rule of choice and seed.
        dataset_path: of the prepared data set.
        sequences: what counts as an engagement (``asdict`` of a ``SequenceConfig``).
        max_length: newest events the tower looks at.
        gap_hours: how long before a request its history ends.
        config_file: the run's resolved configuration.
        examples: histories, with the embeddings [E, W] of their items, on which the exported
            towers are compared with the trained one.
        measure: metrics of the choose split; None measures none.
        model: name of the system.
        normalised: user embeddings have length 1, and scores are cosines; else products.
        write_items: writes the item embeddings that the model itself has learned, which lie in
            the artifact; None where they are those of ``post_embeddings``.
        beside: what else is compiled, by the names of the files.
        own: what the manifest of this system says beside what those of all towers say.
    """

    post_embeddings: str
    training: dict[str, Any]
    dataset_path: Path
    sequences: dict[str, Any]
    max_length: int
    gap_hours: float
    config_file: Path
    examples: tuple[SequenceBatch, Tensor]
    measure: Measure | None = None
    model: str = SequenceTowerManifest.system
    normalised: bool = True
    write_items: Callable[[Path], None] | None = None
    beside: Mapping[str, nn.Module] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)


def export_sequence_tower(
    tower: nn.Module, dataset: DatasetManifest, folder: Path, export: SequenceExport
) -> SequenceTowerManifest:
    """Write the artifact of a trained tower; one that is there is replaced in one step.

    Returns:
        Its manifest, with metrics ``export/val/float/<name>`` and ``export/val/int8/<name>`` where
        they were measured.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
        ConfigError: ``folder`` holds something else than an artifact.
    """
    tower = tower.eval()
    exported = {Precision.FLOAT: tower, Precision.INT8: quantized_tower(tower)}
    with made_folder(folder, ARTIFACT_FOLDER) as partial:
        shutil.copy(export.config_file, partial / CONFIG_FILE)
        for precision, module in exported.items():
            save_tower(script_tower(module), partial / TOWER_FILES[precision])
        for name, module in export.beside.items():
            save_tower(script_tower(module), partial / name)
        if export.write_items is not None:
            export.write_items(partial / export.post_embeddings)
        manifest = _manifest(tower, dataset, export, partial)
        artifacts = {p: open_tower(partial, manifest, p) for p in Precision}
        manifest = replace(manifest, agreement=_check(tower, artifacts, export.examples))
        if export.measure is not None:
            manifest = replace(manifest, metrics=_measured(artifacts, export.measure))
        manifest = replace(manifest, files=describe_files(partial))
        manifest.save(partial, folder)
    return manifest


def _check(
    tower: nn.Module,
    artifacts: Mapping[Precision, SequenceTowerArtifact],
    examples: tuple[SequenceBatch, Tensor],
) -> dict[str, float]:
    """What was written, opened again, against the trained tower."""
    with torch.inference_mode():
        trained = embed_with(tower, *examples)
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
    artifacts: Mapping[Precision, SequenceTowerArtifact], measure: Measure
) -> dict[str, dict[str, Any]]:
    return {
        f"export/val/{precision}/{name}": dict(metric)
        for precision, artifact in artifacts.items()
        for name, metric in measure(artifact.embed).items()
    }


def _manifest(
    tower: nn.Module, dataset: DatasetManifest, export: SequenceExport, folder: Path
) -> SequenceTowerManifest:
    environment = describe_environment()
    del environment["command"]
    width = export.examples[1].shape[1]
    sizes = {
        f"{precision}_file_bytes": float((folder / name).stat().st_size)
        for precision, name in TOWER_FILES.items()
    }
    embeddings = Path(export.post_embeddings)
    if export.write_items is not None:
        embeddings = folder / embeddings
    return MANIFESTS[export.model](
        model=export.model,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        training=export.training,
        dataset={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "path": str(export.dataset_path),
        },
        inputs=INPUTS | (PUBLISHED_INPUTS if export.own.get("published") else {}),
        output={"dtype": "float32", "shape": ["B", width], "normalised": export.normalised},
        codes={"action_type": list(dataset.action_types), "surface": list(dataset.surfaces)},
        sizes={"weights_float32_bytes": float(weight_bytes(tower)), **sizes},
        metrics={},
        files={},
        post_embeddings={
            "model": embeddings_model(embeddings),
            "width": width,
            "path": export.post_embeddings,
        },
        sequences=export.sequences,
        max_length=export.max_length,
        gap_hours=export.gap_hours,
        features=user_features(dataset),
        agreement={},
        **export.own,
    )
