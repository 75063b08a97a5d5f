"""Interaction logs, the simulator, timelines, slices, requests, batches and DataModules."""

from recsys.installation import require_supported_set

require_supported_set()
