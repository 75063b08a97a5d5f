"""Factor matrices of stacked blocks: their update, and preconditioning with their roots.

Legend: K blocks of one shape (d₁, …, dₖ); one factor matrix [K, dᵢ, dᵢ] per dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: From this width on the outer product of a vector is limited by memory, and one after the other is
#: faster than a batched matrix product.
_LARGE_VECTOR = 256


def update_factors(factors: Sequence[Tensor], gradients: Tensor, beta2: float) -> None:
    """L ← β2·L + (1 − β2)·G·Gᵀ for every dimension, in place; with β2 = 1 both weights are 1.

    Args:
        factors: one [K, dᵢ, dᵢ] per dimension.
        gradients: [K, d₁, …, dₖ].
        beta2: decay.
    """
    weight = 1 - beta2 if beta2 < 1 else 1.0
    for dimension, factor in enumerate(factors):
        if len(factors) == 1 and factor.shape[1] >= _LARGE_VECTOR:
            for one, vector in zip(factor, gradients.to(factor.dtype), strict=True):
                one.addr_(vector, vector, beta=beta2, alpha=weight)
            continue
        rows = gradients.movedim(dimension + 1, 1).flatten(2) if len(factors) > 1 else gradients
        rows = rows.to(factor.dtype).reshape(*factor.shape[:2], -1)  # [K, dᵢ, rest]
        factor.baddbmm_(rows, rows.mT, beta=beta2, alpha=weight)


def precondition(directions: Tensor, roots: Sequence[Tensor]) -> Tensor:
    """Every dimension multiplied by its root: L·M·R for two dimensions.

    Args:
        directions: [K, d₁, …, dₖ].
        roots: one symmetric [K, dᵢ, dᵢ] per dimension, of the same type.
    """
    if len(roots) == 1:  # a row times a symmetric matrix is the fastest product of the two
        return torch.bmm(directions.unsqueeze(1), roots[0]).squeeze(1)
    if len(roots) == 2:
        return torch.bmm(torch.bmm(roots[0], directions), roots[1])
    for root in roots:
        shape = directions.shape
        product = torch.bmm(root, directions.reshape(*shape[:2], -1))  # [K, dᵢ, rest]
        directions = product.reshape(shape).movedim(1, -1)  # the next dimension comes first
    return directions.contiguous()
