"""Optimiser construction."""

from recsys.installation import require_supported_set

require_supported_set()
