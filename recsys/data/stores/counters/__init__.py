"""Counters of items, authors and topics by the hour, as they could be known at a moment."""

from recsys.data.stores.counters.store import CounterStore

__all__ = ["CounterStore"]
