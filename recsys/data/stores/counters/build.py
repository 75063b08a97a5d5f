"""Building the arrays of a ``CounterStore`` in one pass over the timelines.

Legend: V indices of an entity, H hours in which something happened to one, A action types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.progress import track
from recsys.data.contract.schema import (
    IMPRESSION,
    LENGTHS,
    MILLISECONDS_PER_HOUR,
    TimelineKind,
)
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import (
    ALL_EVENTS,
    END_OF_TIME,
    DerivedArrays,
    save_array,
    user_chunks,
)

COUNTERS = DerivedArrays("counters", "counters.json", version=1)

#: What is counted: an id column, or everything under the index 0.
EVERYTHING = "everything"
ENTITIES = ("item", "author", "topic", EVERYTHING)
#: Fact of the description: the action types that the columns count, by name.
ACTIONS = "actions"
#: Arrays of an entity; ``offsets`` [V + 1], ``hours`` [H] and ``counts`` [H, A].
OFFSETS, HOURS, COUNTS = "offsets", "hours", "counts"

#: Rows of partial counts that are kept before they are added up.
_ROWS_KEPT = 8_000_000


def array_name(entity: str, array: str) -> str:
    """The file's name of an entity's array."""
    return f"{entity}_{array}"


def ensure_counters(dataset: PreparedDataset) -> Path:
    """The folder of the arrays, built if they are not there.

    Raises:
        DataError: the data set was prepared anew since it was opened.
    """
    return COUNTERS.ensure(dataset, [], _build)


def _build(dataset: PreparedDataset, folder: Path) -> dict[str, Any]:
    actions = dataset.manifest.actions
    partial: dict[str, list[pl.DataFrame]] = {entity: [] for entity in ENTITIES}
    for users in track(list(user_chunks(dataset, *TimelineKind)), "Counting by the hour"):
        events = pl.concat(_events(dataset, users, kind) for kind in TimelineKind)
        for entity, kept in partial.items():
            kept.append(_added_up(_of_entity(events, entity)))
            if sum(len(part) for part in kept) > _ROWS_KEPT:
                kept[:] = [_added_up(pl.concat(kept))]
    whole = {entity: _added_up(pl.concat(kept)) for entity, kept in partial.items()}
    found = whole[EVERYTHING]["action"].unique().to_list()
    codes = sorted({actions.names.index(IMPRESSION), *found})
    for entity, counts in whole.items():
        size = 1 if entity == EVERYTHING else dataset.manifest.vocabulary_sizes[entity]
        _save(folder, entity, counts.sort("index", "hour"), size, codes)
    return {ACTIONS: [actions.names[code] for code in codes]}


def _events(dataset: PreparedDataset, users: NDArray[np.int32], kind: TimelineKind) -> pl.DataFrame:
    """``item``, ``author``, ``topic``, ``hour`` and ``action`` of all events of some users."""
    before = np.full(len(users), END_OF_TIME)
    events = dataset.timelines.histories(users, before, kind, ALL_EVENTS)
    impression = dataset.manifest.actions.names.index(IMPRESSION)
    action = events.get("action_type", np.full(int(events[LENGTHS].sum()), impression, np.int8))
    return pl.DataFrame(
        {
            "item": events["item"],
            "author": events["author"],
            "topic": events["topic"],
            "hour": (events["timestamp"] // MILLISECONDS_PER_HOUR).astype(np.int32),
            "action": action,
        }
    )


def _of_entity(events: pl.DataFrame, entity: str) -> pl.DataFrame:
    """``index``, ``hour``, ``action`` and ``count``; the unknown index 0 is nothing to count."""
    index = pl.lit(0, pl.Int32) if entity == EVERYTHING else pl.col(entity)
    chosen = events.select(index.alias("index"), "hour", "action", count=pl.lit(1, pl.Int64))
    return chosen if entity == EVERYTHING else chosen.filter(pl.col("index") != 0)


def _added_up(counts: pl.DataFrame) -> pl.DataFrame:
    return counts.group_by("index", "hour", "action").agg(pl.col("count").sum())


def _save(folder: Path, entity: str, counts: pl.DataFrame, size: int, codes: list[int]) -> None:
    """Write the running sums of an entity's counts: each of its hours has those up to its end."""
    index, hour = counts["index"].to_numpy(), counts["hour"].to_numpy()
    if len(counts):
        new = np.append(True, (np.diff(index) != 0) | (np.diff(hour) != 0))
    else:
        new = np.empty(0, bool)
    bucket = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    offsets = np.searchsorted(index[first], np.arange(size + 1))
    column = np.searchsorted(codes, counts["action"].to_numpy())
    number = counts["count"].to_numpy()
    large = len(number) and number.sum() > np.iinfo(np.int32).max
    running = np.empty((len(first), len(codes)), np.int64 if large else np.int32)
    lengths = np.diff(offsets)
    for action in range(len(codes)):
        of_action = column == action
        per_hour = np.zeros(len(first) + 1, np.int64)
        per_hour[bucket[of_action] + 1] = number[of_action]
        total = np.cumsum(per_hour)
        running[:, action] = total[1:] - np.repeat(total[offsets[:-1]], lengths)
    save_array(folder, array_name(entity, OFFSETS), offsets.astype(np.int64))
    save_array(folder, array_name(entity, HOURS), hour[first])
    save_array(folder, array_name(entity, COUNTS), running)
