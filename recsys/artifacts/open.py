"""Opening an artifact of whatever model."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.hsnn_tower import HSNN_FILE, HsnnArtifact, HsnnManifest, load_hsnn
from recsys.artifacts.inspection import check_tower_file
from recsys.artifacts.manifest import MANIFEST_FILE, model_of
from recsys.artifacts.ranker_tower import (
    RANKER_FILE,
    RankerArtifact,
    RankerManifest,
    load_ranker,
)
from recsys.artifacts.sequence_tower import (
    MANIFESTS,
    MIXTURE_FILE,
    TOWER_FILES,
    SequenceTowerArtifact,
    SequenceTowerManifest,
    load_sequence_tower,
)
from recsys.artifacts.timeline_tower import (
    TOWER_FILE,
    TimelineTowerArtifact,
    TimelineTowerManifest,
    load_timeline_tower,
)
from recsys.core.errors import ArtifactError

Artifact = TimelineTowerArtifact | SequenceTowerArtifact | RankerArtifact | HsnnArtifact
Kind = type[TimelineTowerManifest | SequenceTowerManifest | RankerManifest | HsnnManifest]

#: TorchScript of models whose artifact has one.
_FILES: dict[Kind, str] = {
    TimelineTowerManifest: TOWER_FILE,
    RankerManifest: RANKER_FILE,
    HsnnManifest: HSNN_FILE,
}


def open_artifact(path: Path | str, trust: bool = False) -> Artifact:
    """Open the artifact in a folder, by the model its manifest names.

    Args:
        path: the artifact folder.
        trust: whether to load one that is not in the user's list of trusted ones.

    Raises:
        ArtifactError: the folder is no artifact, is of a model that is not known, it is not
            trusted, a file of it is not what was exported, or its tower is none that `recsys
            export` writes.
    """
    kind = _manifest_of(Path(path))
    if kind is TimelineTowerManifest:
        return load_timeline_tower(path, trust)
    if kind is RankerManifest:
        return load_ranker(path, trust)
    if kind is HsnnManifest:
        return load_hsnn(path, trust)
    return load_sequence_tower(path, trust=trust)


def trust_artifact(path: Path | str) -> Path:
    """Add an artifact to the user's list of trusted ones; nothing of it is run.

    Returns:
        The list.

    Raises:
        ArtifactError: ``open_artifact`` would refuse it all the same.
        ConfigError: there is no place for a list.
    """
    folder = Path(path)
    manifest = _manifest_of(folder)
    for name in [_FILES[manifest]] if manifest in _FILES else (*TOWER_FILES.values(), MIXTURE_FILE):
        if (folder / name).is_file():
            check_tower_file(folder / name)
    return manifest.remember(folder)


def _manifest_of(folder: Path) -> Kind:
    model = model_of(folder)
    kinds: tuple[Kind, ...] = (*_FILES, *MANIFESTS.values())
    for manifest in kinds:
        if model == manifest.system:
            return manifest
    raise ArtifactError(
        f"{folder / MANIFEST_FILE} is of the model {model}, which this release cannot open."
    )
