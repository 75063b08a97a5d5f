"""Uniform samples of the pool of a softmax loss."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_pool(
    pool_size: int,
    num_negatives: int,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Positions [min(N, P)] of a uniform sample of the pool, without repetition.

    It is the argument ``negatives`` of ``pool_softmax_loss``: all queries share the sample and
    each keeps its own target beside it, so targets need not be drawn. What a query's owner owns
    is masked as in the whole pool, which leaves it somewhat fewer negatives.

    Args:
        pool_size: P.
        num_negatives: N; the paper's table 3 has 500 and 1000.
        device: of the positions, and of ``generator``.
        generator: of the random numbers; None for the global one.
    """
    positions = torch.randperm(pool_size, device=device, generator=generator)
    return positions[:num_negatives]
