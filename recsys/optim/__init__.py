"""Optimiser construction."""
