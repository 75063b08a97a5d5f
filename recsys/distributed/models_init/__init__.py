"""One LightningModule per system."""

from recsys.core.installation import require_supported_set

require_supported_set()
