"""The images of an item as one vector."""

from __future__ import annotations

from torch import Tensor, nn

from recsys.nn.sequence.pooling import SumPooling


class ImageSet(nn.Module):
    """Deep sets: one MLP for every image, their sum, another MLP (Zaheer et al. 2017).

    Neither the order of an item's images nor how many there are is fixed.

    Args:
        image_width: width of a given image embedding.
        width: D.
    """

    def __init__(self, image_width: int, width: int) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(image_width, width), nn.ReLU(), nn.Linear(width, width))
        self.sum = SumPooling()
        self.all = nn.Sequential(nn.ReLU(), nn.Linear(width, width))

    def forward(self, images: Tensor, lengths: Tensor) -> Tensor:
        """[I, W_i] image embeddings and [P] images per item → [P, D]."""
        encoded: Tensor = self.all(self.sum(self.each(images), lengths))
        return encoded
