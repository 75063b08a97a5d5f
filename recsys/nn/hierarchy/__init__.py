"""Nodes of items, level by level, learned with a model or beside it (HSNN)."""
