"""Exported models."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.open import Artifact
from recsys.artifacts.open import open_artifact as open_any


def open_artifact(path: Path | str) -> Artifact:
    """Open what `recsys export` wrote, after checking its format version and every checksum.

    >>> artifact = recsys.open_artifact("runs/mine/artifact")  # doctest: +SKIP
    >>> artifact.manifest.training["checkpoint"]  # doctest: +SKIP
    'best.ckpt'

    Args:
        path: the artifact folder.

    Returns:
        A tower over timelines (DV365) or over sequences (NxtPost); its ``embed`` gives user
        embeddings.

    Raises:
        ArtifactError: the folder is no artifact, or a file of it is not what was exported.
    """
    return open_any(path)
