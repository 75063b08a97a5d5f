"""From the sums and weights of slices to one vector per slice."""

import torch
from torch import Tensor, nn

#: Standard deviation of the count vectors at the start: about what a mean of topic rows varies by.
_SPREAD = 0.3
#: Logarithms of weights are divided by no less, or a slice that hardly anybody has would shout.
_LEAST_DEVIATION = 0.1


class SliceMeans(nn.Module):
    """(Weighted) mean pooling (DV365 §2.2), and on request how much was pooled.

    A mean forgets how many events it is of: a user who likes everything and one who likes a few
    of the same items look alike. With ``counted`` every slice owns a vector that is added in
    proportion to the logarithm of its weight w, standardised over fit requests (``measure``):
    ``mean + (ln(1 + w) - μ) / σ * vector``. Without the standardisation what users share and what
    the fullest slices hold would drown what a few follows or comments say. This is ours, not the
    paper's; ``docs/results/dv365.md`` has what it is worth.

    Args:
        num_slices: S.
        dimension: D.
        counted: whether to add the count vectors.
    """

    count_mean: Tensor
    count_deviation: Tensor

    def __init__(self, num_slices: int, dimension: int, counted: bool) -> None:
        super().__init__()
        self.count_vectors = (
            nn.Parameter(torch.randn(num_slices, dimension) * _SPREAD) if counted else None
        )
        self.register_buffer("count_mean", torch.zeros(num_slices), persistent=counted)
        self.register_buffer("count_deviation", torch.ones(num_slices), persistent=counted)

    def measure(self, slice_weight: Tensor) -> None:
        """Standardise the logarithms by these requests' weights, [n, S]."""
        logarithm = torch.log1p(slice_weight)
        self.count_mean.copy_(logarithm.mean(dim=0))
        deviation = logarithm.std(dim=0, correction=0)
        self.count_deviation.copy_(deviation.clamp(min=_LEAST_DEVIATION))

    def forward(self, slice_sum: Tensor, slice_weight: Tensor) -> Tensor:
        """One vector per slice; without counts, zero for a slice without events.

        Args:
            slice_sum: [B, S, D] sums of (weighted) rows.
            slice_weight: [B, S] number of events, or sum of their weights.

        Returns:
            [B, S, D].
        """
        weight = torch.where(slice_weight > 0, slice_weight, torch.ones_like(slice_weight))
        means = slice_sum / weight.unsqueeze(-1)
        if self.count_vectors is not None:
            fill = (torch.log1p(slice_weight) - self.count_mean) / self.count_deviation  # [B, S]
            means = means + fill.unsqueeze(-1) * self.count_vectors
        return means
