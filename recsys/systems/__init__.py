"""The systems that `recsys train` trains, a folder each, and their registry."""

from recsys.core.installation import require_supported_set

require_supported_set()
