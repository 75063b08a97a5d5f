"""The wide-and-deep baseline."""
