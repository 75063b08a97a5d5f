"""The post tower: text, images and metadata of a post to its embedding (NxtPost §3.1.1)."""

from recsys.nn.post_tower.tower import PostTower, PostTowerConfig

__all__ = ["PostTower", "PostTowerConfig"]
