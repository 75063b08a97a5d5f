"""The Lightning DataModules."""
