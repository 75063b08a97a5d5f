"""Quantisation, TorchScript towers, published embeddings and the artifact manifest."""

from recsys.installation import require_supported_set

require_supported_set()
