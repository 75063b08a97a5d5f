"""Policies compared in a world that is played, on the same users, moments and draws."""
