"""Indexes of item embeddings."""
