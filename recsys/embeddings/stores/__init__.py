"""Key-value stores of published user embeddings: user id → (version, timestamp, 4-bit rows)."""

from __future__ import annotations

from recsys.core.errors import ConfigError
from recsys.core.secrets import mask_address
from recsys.embeddings.stores.base import EmbeddingStore, Publication, StoredEmbedding

__all__ = ["EmbeddingStore", "Publication", "StoredEmbedding", "open_store"]

#: As redis-py reads them.
REDIS_SCHEMES = ("redis", "rediss", "unix")


def open_store(location: str, readonly: bool = False) -> EmbeddingStore:
    """Open the store at ``location``: ``redis://host:port/database``, or the folder of an LMDB.

    A folder that is not there is created, unless ``readonly`` is set.

    Raises:
        ArtifactError: nothing can be opened there.
        ConfigError: an address of another kind.
    """
    scheme, separator, _ = location.partition("://")
    if not separator and location.partition(":")[0] in REDIS_SCHEMES:
        raise ConfigError(  # what follows may be a password
            f"store={location.partition(':')[0]}:… is no address; it begins with redis://."
        )
    if separator and scheme not in REDIS_SCHEMES:
        raise ConfigError(
            f"store={mask_address(location)}: embeddings are kept in Redis, at an address that "
            f"begins with redis:, rediss: or unix:, or in a folder, not at {scheme}:; give one of "
            "these."
        )
    if separator:
        from recsys.embeddings.stores.redis import RedisStore

        return RedisStore(location)
    from recsys.embeddings.stores.lmdb import LmdbStore

    return LmdbStore(location, readonly=readonly)
