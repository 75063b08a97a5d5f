"""Building the arrays of an ``EngagementStore`` in one pass over the explicit timelines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.core.progress import track
from recsys.data.contract.schema import EXPLICIT_COLUMNS, LENGTHS, TimelineKind
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.derived import (
    ALL_EVENTS,
    END_OF_TIME,
    DerivedArrays,
    save_array,
    user_chunks,
)
from recsys.data.stores.engagements.config import SequenceConfig

SEQUENCES = DerivedArrays("sequences", "engagements.json", version=3)
OFFSETS = "offsets"
#: Arrays with one entry per engagement.
COLUMNS: dict[str, np.dtype] = {
    name: EXPLICIT_COLUMNS[name] for name in ("item", "action_type", "surface", "timestamp")
}
#: Facts of the description: how many engagements were left out since their item is unknown, and
#: whether every engagement of a user with an item is there, not only the first.
SKIPPED, REPEATS = "skipped", "repeats"


def ensure_engagements(
    dataset: PreparedDataset, config: SequenceConfig, known_items: NDArray[np.bool_] | None
) -> Path:
    """The folder of the arrays, built if they are not there.

    Raises:
        DataError: there is no engagement, or the data set was prepared anew since it was opened.
    """
    num_items = dataset.manifest.vocabulary_sizes["item"]
    known = np.ones(num_items, bool) if known_items is None else known_items.copy()
    if known.shape != (num_items,):
        raise ValueError(f"known_items has shape {known.shape}, expected ({num_items},)")
    known[0] = False
    codes = config.action_codes(dataset.manifest.actions)
    known_mark = hashlib.sha256(np.packbits(known).tobytes()).hexdigest()

    def build(current: PreparedDataset, folder: Path) -> dict[str, Any]:
        return _build(current, config, known, folder)

    return SEQUENCES.ensure(dataset, [codes, config.repeats, len(known), known_mark], build)


def _build(
    dataset: PreparedDataset, config: SequenceConfig, known: NDArray[np.bool_], folder: Path
) -> dict[str, Any]:
    num_users = dataset.manifest.vocabulary_sizes["user"]
    counts = np.zeros(num_users, np.int64)
    skipped = 0
    columns_written = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS}
    try:
        chunks = list(user_chunks(dataset, TimelineKind.EXPLICIT))
        for users in track(chunks, "Collecting engagements"):
            before = np.full(len(users), END_OF_TIME)
            owner, columns, unknown = engagements_before(dataset, users, before, config, known)
            counts += np.bincount(users[owner], minlength=num_users)
            skipped += unknown
            for name, file in columns_written.items():
                file.write(columns[name].tobytes())
    finally:
        for file in columns_written.values():
            file.close()
    total = int(counts.sum())
    if not total:
        raise DataError(_no_engagement(dataset, config, skipped))
    for name, dtype in COLUMNS.items():
        raw = folder / f"{name}.bin"
        save_array(folder, name, np.memmap(raw, dtype, mode="r", shape=(total,)))
        raw.unlink()
    save_array(folder, OFFSETS, np.concatenate([[0], np.cumsum(counts)]))
    return {SKIPPED: skipped, REPEATS: config.repeats}


def engagements_before(
    dataset: PreparedDataset,
    users: NDArray[np.integer],
    before: NDArray[np.int64],
    config: SequenceConfig,
    known: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], dict[str, NDArray], int]:
    """The engagements of some users strictly before some moments.

    Args:
        dataset: the prepared data set; of a live one what has come since is there too.
        users: [B] user indices.
        before: [B] ms.
        config: what counts as an engagement.
        known: [V] whether an item can be used.

    Returns:
        The position of each engagement's user in ``users`` [E], the columns of an
        ``EngagementStore`` [E], and how many engagements were left out since their item is unknown.
    """
    events = dataset.timelines.histories(users, before, TimelineKind.EXPLICIT, ALL_EVENTS)
    owner = np.repeat(np.arange(len(users)), events[LENGTHS])
    codes = config.action_codes(dataset.manifest.actions)
    counted = np.isin(events["action_type"], codes)
    kept = counted & known[events["item"]]
    skipped = int(np.count_nonzero(counted) - np.count_nonzero(kept))
    rows = np.flatnonzero(kept)
    if not config.repeats:
        rows = rows[_is_first(owner[rows], events["item"][rows])]
    return owner[rows], {name: events[name][rows] for name in COLUMNS}, skipped


def _is_first(owner: NDArray[np.int64], item: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[E] whether an event is the first of its user with its item."""
    pair = owner << 32 | item
    first = np.zeros(len(pair), bool)
    first[np.unique(pair, return_index=True)[1]] = True
    return first


def _no_engagement(dataset: PreparedDataset, config: SequenceConfig, skipped: int) -> str:
    actions = ", ".join(config.actions) or "any positive explicit action"
    if skipped:
        return (
            f"{dataset.path} has {skipped} engagements ({actions}), none of them with a known "
            "item; give embeddings of the items that are in the log."
        )
    way_out = "name action types that the log has in sequences.actions"
    if not dataset.manifest.counts.get("explicit_events"):
        way_out = (
            "all of its events are impressions. If they are something that users did, prepare the "
            "log again and say what: options.default_action=click, or "
            "options.actions.<name in the log>=click"
        )
    return f"{dataset.path} has no engagement: no explicit event with {actions}; {way_out}."
