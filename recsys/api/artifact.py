"""Exported models."""

from __future__ import annotations

from pathlib import Path

from recsys.artifacts.open import Artifact
from recsys.artifacts.open import open_artifact as open_any
from recsys.core.mirror import local_folder


def open_artifact(path: Path | str, trust: bool = False) -> Artifact:
    """Open what `recsys export` wrote, after checking its version, checksums and code.

    >>> artifact = recsys.open_artifact("runs/mine/artifact")  # doctest: +SKIP
    >>> artifact.manifest.training["checkpoint"]  # doctest: +SKIP
    'best.ckpt'

    Args:
        path: the artifact folder.
        trust: whether to load one that is not among those you have exported or trusted
            (docs/export.md).

    Returns:
        A tower over timelines (DV365) or over sequences (NxtPost), whose ``embed`` gives user
        embeddings; a ranker, with ``encode_user`` and ``score``; or an HSNN, which has ``descend``
        too.

    Raises:
        ArtifactError: the folder is no artifact, it is not trusted, a file of it is not what was
            exported, or its tower is none that `recsys export` writes.
    """
    return open_any(local_folder(path), trust)
