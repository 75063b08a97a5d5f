"""Metrics and the protocols under which they are reported."""
