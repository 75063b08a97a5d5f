"""Encoders of sequences of events: from one token per event to one state per event."""
