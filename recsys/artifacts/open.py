"""Opening an artifact of whatever model."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.manifest import MANIFEST_FILE, model_of
from recsys.artifacts.sequence_tower import (
    SequenceTowerArtifact,
    SequenceTowerManifest,
    load_sequence_tower,
)
from recsys.artifacts.timeline_tower import (
    TimelineTowerArtifact,
    TimelineTowerManifest,
    load_timeline_tower,
)
from recsys.core.errors import ArtifactError

Artifact = TimelineTowerArtifact | SequenceTowerArtifact


def open_artifact(path: Path | str) -> Artifact:
    """Open the artifact in a folder, by the model its manifest names.

    Raises:
        ArtifactError: the folder is no artifact, is of a model that is not known, or a file of it
            is not what was exported.
    """
    model = model_of(Path(path))
    if model == TimelineTowerManifest.system:
        return load_timeline_tower(path)
    if model == SequenceTowerManifest.system:
        return load_sequence_tower(path)
    raise ArtifactError(
        f"{Path(path) / MANIFEST_FILE} is of the model {model}, which this release cannot open."
    )
