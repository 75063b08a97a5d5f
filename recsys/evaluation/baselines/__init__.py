"""Untrained scorers, measured in the same protocol as the models."""
