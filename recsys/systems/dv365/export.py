"""From a run of DV365 to the artifact of its user tower."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.artifacts.manifest import ARTIFACT_FOLDER, describe_files
from recsys.artifacts.timeline_tower import (
    ENCODER_FILE,
    TOWER_FILE,
    TOWER_IDS,
    TimelineTowerArtifact,
    TimelineTowerManifest,
    describe_inputs,
)
from recsys.artifacts.torchscript import save_tower, script_tower
from recsys.core.environment import describe_environment
from recsys.core.errors import ArtifactError
from recsys.core.folders import made_folder
from recsys.data.slices.rules import AttributeKind, RangeCondition
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import vocabulary_path
from recsys.embeddings.rows import row_integers
from recsys.evaluation.metrics_file import replace_metrics
from recsys.runs.files import CONFIG_FILE, EXPORT_PREFIX
from recsys.systems.base import ExportConfig
from recsys.systems.dv365.config import DV365Run
from recsys.systems.dv365.measure import quantized_metrics
from recsys.systems.dv365.module import build_user_tower
from recsys.systems.dv365.net import UserTower
from recsys.systems.dv365.quantise import export_encoder, quantize_tables, table_bytes


def export_run(run: DV365Run, config: ExportConfig) -> Path:
    """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: the run has no user tower.
        ConfigError: ``out`` holds something else, or ``table_bits`` or the embedding's width cannot
            be exported.
    """
    out = config.folder(run.folder, run.dataset.path)
    integers = row_integers(run.config.model.dimension)
    tower = _inference_tower(run)
    float_bytes = table_bytes(tower)
    num_outputs = tower.num_outputs
    quantize_tables(tower, config.table_bits)
    with made_folder(out, ARTIFACT_FOLDER) as folder:
        shutil.copy(run.folder / CONFIG_FILE, folder / CONFIG_FILE)
        _copy_vocabularies(run, folder)
        dimension = run.config.model.dimension
        export_encoder(
            tower.encoder, len(run.model.slice_set.slices), dimension, folder / ENCODER_FILE
        )
        scripted = script_tower(tower)
        save_tower(scripted, folder / TOWER_FILE)
        vector_bytes = num_outputs * dimension * 4
        sizes = {
            "tables_float32_bytes": float_bytes,
            "tables_bytes": table_bytes(tower),
            "tables_compression": float_bytes / table_bytes(tower),
            "embedding_float32_bytes": vector_bytes,
            "embedding_bytes": num_outputs * integers * 8,
            "embedding_compression": vector_bytes / (num_outputs * integers * 8),
        }
        manifest = _manifest(run, config, num_outputs, sizes)
        if config.measure:
            measured = quantized_metrics(
                run, TimelineTowerArtifact(folder, manifest, scripted).embed
            )
            manifest = replace(manifest, metrics=measured)
        replace(manifest, files=describe_files(folder)).save(folder, out)
    if config.measure:
        replace_metrics(run.folder, f"{EXPORT_PREFIX}/", measured)
    return out


def age_edges(slice_set: SliceSet) -> tuple[int, ...]:
    """Ages (ms) at which an event enters or leaves a slice by growing older."""
    edges: set[float] = set()
    for one in slice_set.slices:
        for condition in one.conditions:
            is_age = condition.attribute.kind is AttributeKind.AGE
            if is_age and isinstance(condition, RangeCondition):
                edges |= {condition.lower, condition.upper}
    return tuple(sorted(int(edge) for edge in edges if 0 < edge < float("inf")))


def _inference_tower(run: DV365Run) -> UserTower:
    """The trained tower with cell pooling, whichever pooling it was trained with."""
    if run.model.tower is None:
        raise ArtifactError(
            f"{run.folder} was trained without timelines (encoder.name=none), so it has no user "
            "tower to export; choose a run with an encoder."
        )
    model = replace(run.config.model, pooling="cells")
    tower = build_user_tower(model, run.config.encoder, run.manifest, run.model.slice_set)
    assert tower is not None
    tower.load_state_dict(run.model.tower.state_dict())
    return tower


def _copy_vocabularies(run: DV365Run, folder: Path) -> None:
    """The ids the tower was trained with; an id that is not there is given to it as index 0."""
    known = FitVocabulary.of(run.manifest).sizes
    for name in TOWER_IDS:
        run.dataset.vocabulary(name).up_to(known[name]).save(vocabulary_path(folder, name))


def _manifest(
    run: DV365Run, config: ExportConfig, num_outputs: int, sizes: dict[str, float]
) -> TimelineTowerManifest:
    environment = describe_environment()
    del environment["command"]
    dimension = run.config.model.dimension
    embedding: dict[str, Any] = {"dtype": "float32", "shape": ["B", num_outputs, dimension]}
    published = {"dtype": "int64", "shape": [num_outputs, row_integers(dimension)]}
    return TimelineTowerManifest(
        model="dv365",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment,
        training=run.training,
        dataset={
            "name": run.manifest.name,
            "fingerprint": run.manifest.fingerprint,
            "path": str(run.dataset.path),
        },
        fit_vocabulary=FitVocabulary.of(run.manifest).sizes,
        gap_hours=run.config.loader.gap_hours,
        max_events=run.config.loader.max_events,
        age_edges=age_edges(run.model.slice_set),
        inputs=describe_inputs(),
        output={"embedding": embedding, "published": published},
        codes={
            "action_type": list(run.manifest.action_types),
            "surface": list(run.manifest.surfaces),
            "media_type": list(run.manifest.media_types),
        },
        sizes=sizes,
        table_bits=config.table_bits,
        metrics={},
        files={},
    )
