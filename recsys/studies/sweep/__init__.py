"""`recsys sweep`: searches over settings."""
