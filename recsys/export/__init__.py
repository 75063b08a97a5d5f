"""Quantisation, TorchScript towers, published embeddings and the artifact manifest."""
