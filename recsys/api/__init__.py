"""What a notebook uses, reached as `recsys.<name>` (docs/python.md)."""
