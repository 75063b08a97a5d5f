"""The post tower: text, images and metadata of an item to its embedding (NxtPost §3.1.1)."""
