"""Embedding tables shared by slices and features, and what they are asked for."""
