"""Events that users did and items that have come, as they are reported to a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, Column
from recsys.data.stores.live.dataset import LiveDataset
from recsys.data.stores.live.events import Reported
from recsys.data.stores.vocabulary import FIRST_SEEN
from recsys.service.config import LOG, MACHINE
from recsys.service.messages import Event, Item
from recsys.service.served import Served

#: What the clocks of those who report may be ahead, ms; of a log of the past the newest event says
#: what time it is, and one that is far ahead would leave nothing of what was popular.
_AHEAD = {MACHINE: 60_000, LOG: MILLISECONDS_PER_DAY}
FUTURE = "timestamp is in the future"


def append(served: Served, events: Sequence[Event], clock: str) -> Reported:
    """Take in events.

    Args:
        served: a generation, over the events of all.
        events: as they are reported.
        clock: that says what is in the future.

    Raises:
        RecsysError: they could not be written.
    """
    dataset, now = served.dataset, served.now()
    manifest = dataset.manifest
    columns = {
        "user": served.users.reported([one.user for one in events]),
        "item": served.reported_items([one.item for one in events]),
        "timestamp": np.array([one.timestamp or now for one in events], np.int64),
        "action_type": _codes(manifest.action_types, [one.action for one in events]),
        "surface": _codes(manifest.surfaces, [one.surface for one in events], 0),
        "media_type": _codes(manifest.media_types, [one.media_type for one in events], 0),
        "dwell_time": np.array([one.dwell_time for one in events], np.float64),
        "video_duration": np.array([one.video_duration for one in events], np.float64),
    }
    ahead = columns["timestamp"] > now + _AHEAD[clock]
    reported = dataset.live.append({name: of[~ahead] for name, of in columns.items()})
    if not ahead.any():
        return reported
    return Reported(reported.taken, {**reported.set_aside, FUTURE: int(ahead.sum())})


def announce(served: Served, items: Sequence[Item], clock: str) -> Reported:
    """Take in items that have come.

    Args:
        served: a generation, behind whose data set they come.
        items: as they are announced.
        clock: that says what is in the future.

    Raises:
        ConfigError: one states what the data set states of no item, or items cannot come behind it.
        RecsysError: they could not be written.
    """
    now = served.now()
    rows = [one for one in items if (one.timestamp or now) <= now + _AHEAD[clock]]
    dataset = _numbered(served)
    stated = [_stated(one) for one in rows]
    taken, set_aside = dataset.live.announced.announce(dataset, stated, now)
    set_aside[FUTURE] += len(items) - len(rows)
    return Reported(taken, dict(+set_aside))


def withdraw(served: Served, item: str) -> bool:
    """Take an item out of what can be shown.

    Returns:
        Whether there is one.

    Raises:
        ConfigError: items cannot be withdrawn from the data set.
        RecsysError: it could not be written.
    """
    dataset = _numbered(served)
    return dataset.live.announced.withdraw(dataset, item)


def _numbered(served: Served) -> LiveDataset:
    """The data set, unless its ids of items are hashed."""
    try:
        served.dataset.refuse_hashed()
    except DataError as error:
        raise ConfigError(str(error)) from error
    return served.dataset


def _stated(item: Item) -> dict[str, Any]:
    """An item, and what is stated of it, as it is announced."""
    found: dict[str, Any] = {Column.ITEM.value: item.item, FIRST_SEEN: item.timestamp}
    if item.author is not None:
        found[Column.AUTHOR.value] = item.author
    if item.topic is not None:
        found[Column.TOPIC.value] = item.topic
    if twice := found.keys() & item.features.keys():
        raise ConfigError(
            f"item {item.item}: features say {', '.join(twice)} beside item, timestamp, author and "
            "topic; leave it out there."
        )
    return {**found, **item.features}


def _codes(names: Sequence[str], given: Sequence[str | None], unknown: int = -1) -> Any:
    """[n] places of some names; ``unknown`` of others."""
    code: Mapping[str | None, int] = {name: place for place, name in enumerate(names)}
    return np.array([code.get(one, unknown) for one in given], np.int64)
