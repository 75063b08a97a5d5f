"""Which users have an embedding at a moment, and whose changed since an earlier one.

An embedding depends on the events before the cutoff (``as_of`` − gap) and on their ages at
``as_of``. It changes when events come under the cutoff (new ones, or ones that crossed the gap),
when an event's age passes the edge of a slice's window, or when events older than the former
cutoff enter the log late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import TimelineKind
from recsys.data.stores.timelines import TimelineStore
from recsys.data.stores.timelines.layout import StoreManifest, map_block

_ALL_EVENTS = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Moment:
    """When embeddings are computed.

    Attributes:
        as_of: ms.
        gap: ms between the newest event an embedding may hold and ``as_of``.
        retention: ms; a user without an event younger than this is not active.
    """

    as_of: int
    gap: int
    retention: int

    @property
    def cutoff(self) -> int:
        """Events strictly before it are seen."""
        return self.as_of - self.gap


def events_between(
    timelines: TimelineStore, users: NDArray[np.int32], first: int, last: int
) -> NDArray[np.bool_]:
    """[U] whether each user has an event of either timeline in ``[first, last)``."""
    found = np.zeros(len(users), np.bool_)
    if last > first:
        for kind in TimelineKind:
            bounds = (np.full(len(users), moment) for moment in (first, last))
            before = [timelines.lengths(users, b, kind, _ALL_EVENTS) for b in bounds]
            found |= before[1] > before[0]
    return found


def active_users(
    timelines: TimelineStore, users: NDArray[np.int32], moment: Moment
) -> NDArray[np.bool_]:
    """[U] whether each user has an event in ``[as_of − retention, as_of − gap)``."""
    return events_between(timelines, users, moment.as_of - moment.retention, moment.cutoff)


def changed_users(
    timelines: TimelineStore,
    users: NDArray[np.int32],
    former: Moment,
    moment: Moment,
    age_edges: tuple[int, ...],
) -> NDArray[np.bool_]:
    """[U] whether each user's embedding may differ between two moments on the same timelines.

    Args:
        timelines: of both moments.
        users: [U] indices.
        former: the earlier moment.
        moment: the later one, with the same gap.
        age_edges: ages (ms) at which an event enters or leaves a window.
    """
    changed = events_between(timelines, users, former.cutoff, moment.cutoff)
    for edge in age_edges:
        # An event's age is at most the edge at the former moment and above it at this one.
        changed |= events_between(timelines, users, former.as_of - edge, moment.as_of - edge)
    return changed


def block_checksums(store: StoreManifest) -> dict[str, int]:
    """The block files of a timeline store, which never change, with their checksums."""
    return {block.file: block.mark.crc32 for block in store.blocks}


def users_with_late_events(
    timelines: TimelineStore, store: StoreManifest, known: dict[str, int], cutoff: int
) -> NDArray[np.int32]:
    """Users with events before ``cutoff`` in blocks written since the former publication.

    A compaction or deletion rewrites blocks, so their users are among them too: computed once
    more, to the same values.

    Args:
        timelines: the store.
        store: its manifest.
        known: ``block_checksums`` at the former publication.
        cutoff: of the former publication, ms.
    """
    late = [np.empty(0, np.int32)]
    for entry in store.blocks:
        if known.get(entry.file) == entry.mark.crc32:
            continue
        for block in map_block(timelines.path, entry).values():
            oldest = block.columns["timestamp"][block.offsets[:-1]]  # [U], sorted by time
            late.append(block.users[oldest < cutoff])
    return np.unique(np.concatenate(late))
