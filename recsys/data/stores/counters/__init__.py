"""Counters of items, authors and topics by the hour, as they could be known at a moment."""
