"""Interaction logs, from the owner's files to batches and the DataModules."""
