"""Metrics and the protocols under which they are reported."""

from recsys.core.installation import require_supported_set

require_supported_set()
