"""Small engagement stores, written as the prepared data set holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.data.stores.derived import save_array
from recsys.data.stores.engagements.build import COLUMNS, OFFSETS, REPEATS, SEQUENCES, SKIPPED
from recsys.data.stores.engagements.store import EngagementStore

HOUR = 3_600_000
DAY = 24 * HOUR

Event = tuple[int, int, int]


def store_of(
    folder: Path, events: Sequence[Event], num_users: int | None = None, repeats: bool = False
) -> EngagementStore:
    """A store of (user, item, ms) events; action type and surface are item mod 5 and user mod 3."""
    folder.mkdir(parents=True, exist_ok=True)
    user, item, time = np.array(events, dtype=np.int64).reshape(-1, 3).T
    order = np.lexsort((time, user))
    user, item, time = user[order], item[order], time[order]
    num_users = num_users or int(user.max()) + 1
    arrays = {"item": item, "action_type": item % 5, "surface": user % 3, "timestamp": time}
    for name, dtype in COLUMNS.items():
        save_array(folder, name, arrays[name].astype(dtype))
    save_array(folder, OFFSETS, np.searchsorted(user, np.arange(num_users + 1)))
    SEQUENCES.describe(folder, {SKIPPED: 0, REPEATS: repeats})
    return EngagementStore(folder)


def random_events(
    generator: np.random.Generator, num_events: int, num_users: int, num_items: int, last: int
) -> list[Event]:
    """Users from 1, items from 1, moments in [0, last) with ties."""
    columns = [
        generator.integers(1, num_users, num_events),
        generator.integers(1, num_items, num_events),
        generator.integers(0, last // (HOUR // 4), num_events) * (HOUR // 4),
    ]
    return [(int(u), int(i), int(t)) for u, i, t in zip(*columns, strict=True)]
