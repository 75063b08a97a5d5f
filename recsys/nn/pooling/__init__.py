"""Timelines to one vector per slice."""
