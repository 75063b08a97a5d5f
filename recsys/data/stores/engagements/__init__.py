"""Sequences of engagements, built once from the explicit timelines and cut by their store alone."""
