"""Lists that are made before they are asked for."""
