"""Layers and losses that know nothing of Lightning, Hydra or files."""
