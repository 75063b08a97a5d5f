"""Published user embeddings: rows of 4 bits, their stores, publishing, deleting, reading."""
