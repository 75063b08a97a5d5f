"""Recommending with an exported user tower and an index."""
