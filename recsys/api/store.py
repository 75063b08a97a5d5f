"""Published user embeddings."""

from __future__ import annotations

from pathlib import Path

from recsys.embeddings import stores
from recsys.embeddings.stores import EmbeddingStore


def open_store(location: Path | str) -> EmbeddingStore:
    """Open a store of published user embeddings for reading.

    >>> with recsys.open_store("runs/mine/embeddings") as store:  # doctest: +SKIP
    ...     found = store.get(42)

    Args:
        location: ``redis://host:port/database``, or the folder of an LMDB.

    Raises:
        ArtifactError: there is no store.
        ConfigError: an address of another kind.
    """
    return stores.open_store(str(location), readonly=True)
