"""Batches as models take them, read from stored rows or made of given users, moments and items."""
