"""Training runs: their folder and configuration, training, going on, loading what was trained."""

from recsys.core.installation import require_supported_set

require_supported_set()
