"""Adapters from the owners' file layouts to the interaction-log contract."""
