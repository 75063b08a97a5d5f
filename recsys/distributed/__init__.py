"""What several processes do together: sharded tables, negatives gathered from all ranks."""

from recsys.core.installation import require_supported_set

require_supported_set()
