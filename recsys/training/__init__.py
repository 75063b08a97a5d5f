"""Run assembly: configuration to data, model, trainer, loggers and resume."""

from recsys.installation import require_supported_set

require_supported_set()
