"""A user tower and an item tower of features, for retrieval by several tasks at once."""
