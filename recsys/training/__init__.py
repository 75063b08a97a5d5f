"""Run assembly: configuration to data, model, trainer, loggers and resume."""
