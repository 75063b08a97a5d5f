"""Slices of timelines: declared in families, expanded into conditions."""
