"""FAISS indexes of items: kinds, search, and the folder they lie in."""
