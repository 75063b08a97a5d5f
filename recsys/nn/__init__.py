"""Layers and losses that know nothing of Lightning, Hydra or files."""

from recsys.core.installation import require_supported_set

require_supported_set()
