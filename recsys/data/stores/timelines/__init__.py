"""The store of timelines: two per user, sorted by time, memory-mapped, cut before a moment."""

from recsys.data.stores.timelines.store import DEFAULT_MAX_EVENTS, TimelineStore
from recsys.data.stores.timelines.writer import DEFAULT_PARTITIONS, EVENT_SCHEMA, TimelineWriter

__all__ = [
    "DEFAULT_MAX_EVENTS",
    "DEFAULT_PARTITIONS",
    "EVENT_SCHEMA",
    "TimelineStore",
    "TimelineWriter",
]
