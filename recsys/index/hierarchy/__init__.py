"""A tree of nodes with items below them, and the descent through it."""
