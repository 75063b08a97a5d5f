"""Small engagement stores, written as the prepared data set holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.core.checksums import FileMark
from recsys.data.stores.engagements.build import COLUMNS, OFFSETS, Description, array_path
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
        np.save(array_path(folder, name), arrays[name].astype(dtype))
    offsets = np.searchsorted(user, np.arange(num_users + 1))
    np.save(array_path(folder, OFFSETS), offsets)
    lengths = {OFFSETS: num_users + 1, **dict.fromkeys(COLUMNS, len(user))}
    files = {name: FileMark.of(array_path(folder, name)) for name in lengths}
    Description("", 0, repeats, lengths, files).save(folder)
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
