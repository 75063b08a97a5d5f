"""Whether the parts of a checkpoint's folder tell of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from recsys.distributed.checkpoint.folder import (
    MANIFEST,
    METADATA,
    DamagedCheckpointError,
    FolderManifest,
)
from recsys.distributed.checkpoint.save import rest_key


def refuse_contradictions(folder: Path, manifest: FolderManifest, metadata: Metadata) -> None:
    """Check that every rank and every chunk has its place in a file that the manifest vouches for.

    Raises:
        DamagedCheckpointError: the manifest or DCP's description has lost something.
    """
    _check_ranks(folder, manifest, metadata)
    for index in _indices(metadata):
        if index not in metadata.storage_data:
            raise DamagedCheckpointError(
                f"{folder / METADATA} is damaged: it does not say where {index.fqn} lies"
            )
    used = {place.relative_path for place in metadata.storage_data.values()}
    for name in sorted(used - manifest.files.keys()):
        raise DamagedCheckpointError(
            f"{folder / MANIFEST} is damaged: it does not name {name}, in which {METADATA} has "
            "tensors"
        )


def _check_ranks(folder: Path, manifest: FolderManifest, metadata: Metadata) -> None:
    described = metadata.state_dict_metadata.items()
    found = {key for key, one in described if isinstance(one, BytesStorageMetadata)}
    if found != {rest_key(rank) for rank in range(manifest.world_size)}:
        raise DamagedCheckpointError(
            f"{folder} is damaged: {MANIFEST} says that {manifest.world_size} process(es) have "
            f"written it, {METADATA} has the state of {len(found)}"
        )


def _indices(metadata: Metadata) -> list[MetadataIndex]:
    """What must have a place in a file."""
    indices = []
    for key, one in metadata.state_dict_metadata.items():
        if isinstance(one, TensorStorageMetadata):
            indices += [MetadataIndex(key, chunk.offsets) for chunk in one.chunks]
        else:
            indices.append(MetadataIndex(key))
    return indices
