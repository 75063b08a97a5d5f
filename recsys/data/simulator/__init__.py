"""A log simulator whose best possible metrics are known."""
