"""Where a service keeps the cache of its funnel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recsys.data.contract.schema import TaskKind
from recsys.data.stores.live.dataset import LiveDataset
from recsys.serving.funnel.cache.stores import LmdbStore, Record, Store
from recsys.serving.funnel.config import FunnelConfig
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


def open_store(funnel: FunnelConfig, dataset: LiveDataset, feed: Path) -> LmdbStore | None:
    """Where the funnel's cache is kept, if it has one."""
    if not funnel.cache.used:
        return None
    # in the order of a funnel's predictions: probabilities come first
    tasks = sorted(counted_tasks(dataset), key=lambda task: task.kind is not TaskKind.BINARY)
    return LmdbStore(feed, [task.name for task in tasks])
