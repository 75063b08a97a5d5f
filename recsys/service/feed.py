"""Where a service keeps the cache of its funnel."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np

from recsys.data.contract.schema import TaskKind
from recsys.data.stores.live.dataset import LiveDataset
from recsys.service.generations import Generation, ServiceState
from recsys.serving.funnel.cache.stores import LmdbStore, Record, Store
from recsys.serving.funnel.live_knowledge import counted_tasks


class NamedStore:
    """A store of a funnel's cache in which items are called as they are noted.

    So processes that know of more or fewer items that were announced can share it, and days may be
    appended.

    Args:
        store: is shared.
        dataset: whose indices the funnel has.
    """

    def __init__(self, store: Store, dataset: LiveDataset) -> None:
        self._store, self._later = store, dataset.live.later
        self._size = dataset.manifest.vocabulary_sizes["item"]

    def get(self, user: int) -> Record | None:
        """What was last put, of items that are known here."""
        record = self._store.get(user)
        if record is None:
            return None
        found = self._later.found(record.rows["item"])
        rows = record.rows.copy()
        rows["item"] = found
        return replace(record, rows=rows[found < self._size])

    def put(self, user: int, record: Record) -> None:
        """Keep it."""
        rows = record.rows.copy()
        rows["item"] = self._later.noted(rows["item"].astype(np.int64))
        self._store.put(user, replace(record, rows=rows))

    def expire(self, before: int) -> None:
        """Forget users who have not come since."""
        self._store.expire(before)

    def close(self) -> None:
        """Write what is not written yet."""
        self._store.close()


def open_store(
    generation: Generation, dataset: LiveDataset, state: ServiceState, redis: str | None
) -> Store | None:
    """Where the cache of a generation's funnel is kept, if it has one at any operating point.

    Args:
        generation: that is served.
        dataset: of it.
        state: of the service.
        redis: address of the Redis that keeps it; None for a folder of the state.

    Raises:
        RecsysError: it cannot be opened; a Redis need not answer yet.
    """
    caches = [generation.funnel.cache, *generation.points.values()]
    hours = max((one.max_age_hours for one in caches if one.used), default=0.0)
    if not hours:
        return None
    # in the order of a funnel's predictions: probabilities come first
    tasks = sorted(counted_tasks(dataset), key=lambda task: task.kind is not TaskKind.BINARY)
    names = [task.name for task in tasks]
    feed = state.feed(generation.number)
    if redis is None:
        return LmdbStore(feed, names)
    # redis-py, for those who have one
    from recsys.serving.funnel.cache.redis_store import RedisStore

    name = f"{platform.node()} {feed.resolve()}"
    return RedisStore(redis, name, names, hours * 3_600)
