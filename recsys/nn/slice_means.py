"""From the sums and weights of slices to one vector per slice."""

import math

import torch
from torch import Tensor, nn

#: ln(1 + events) of a timeline at the paper's limit; counts are measured against it.
_FULL_TIMELINE = math.log1p(35_000)
#: Standard deviation of the count vectors at the start. Users differ by a tenth or so of the
#: logarithm's range; this makes that difference as large as what a mean of topic rows varies by.
_SPREAD = 2.0


class SliceMeans(nn.Module):
    """(Weighted) mean pooling (DV365 §2.2), and on request how much was pooled.

    A mean forgets how many events it is of: a user who likes everything and one who likes a few
    of the same items look alike. With ``counted`` every slice owns a vector that is added in
    proportion to the logarithm of its weight,
    ``mean + ln(1 + weight) / ln(1 + 35,000) * vector``. This is ours, not the paper's;
    ``docs/dv365.md`` measures what it is worth.

    Args:
        num_slices: S.
        dimension: D.
        counted: whether to add the count vectors.
    """

    def __init__(self, num_slices: int, dimension: int, counted: bool) -> None:
        super().__init__()
        self.count_vectors = (
            nn.Parameter(torch.randn(num_slices, dimension) * _SPREAD) if counted else None
        )
        self.full_timeline = _FULL_TIMELINE  # TorchScript reads no module constants

    def forward(self, slice_sum: Tensor, slice_weight: Tensor) -> Tensor:
        """One vector per slice; zero for a slice without events.

        Args:
            slice_sum: [B, S, D] sums of (weighted) rows.
            slice_weight: [B, S] number of events, or sum of their weights.

        Returns:
            [B, S, D].
        """
        weight = torch.where(slice_weight > 0, slice_weight, torch.ones_like(slice_weight))
        means = slice_sum / weight.unsqueeze(-1)
        if self.count_vectors is not None:
            fill = torch.log1p(slice_weight) / self.full_timeline  # [B, S]
            means = means + fill.unsqueeze(-1) * self.count_vectors
        return means
