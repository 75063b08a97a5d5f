"""Interaction logs, the simulator, timelines, slices, requests, batches and DataModules."""
