"""Key-value stores of published user embeddings: user id → (version, timestamp, 4-bit rows)."""

from __future__ import annotations

from recsys.export.embedding_store.base import EmbeddingStore, Publication, StoredEmbedding

__all__ = ["EmbeddingStore", "Publication", "StoredEmbedding", "open_store"]


def open_store(location: str, readonly: bool = False) -> EmbeddingStore:
    """Open the store at ``location``: ``redis://host:port/database``, or the folder of an LMDB.

    A folder that is not there is created, unless ``readonly`` is set.

    Raises:
        ArtifactError: nothing can be opened there.
    """
    if location.startswith(("redis://", "rediss://", "unix://")):
        from recsys.export.embedding_store.redis import RedisStore

        return RedisStore(location)
    from recsys.export.embedding_store.lmdb import LmdbStore

    return LmdbStore(location, readonly=readonly)
