"""Learning to index: soft assignment of items to nodes, residual by residual, and its balance.

(Rangadurai et al., HSNN, 2024.) Legend: n items, W width of an item embedding, L levels, K_l codes
of level l.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_SMALLEST = 1e-12


def distances(items: Tensor, codes: Tensor) -> Tensor:
    """``d(j, k) = ‖v_j − c_k‖₂``: [n, W] and [K, W] → [n, K]."""
    squared = items.square().sum(dim=1, keepdim=True) + codes.square().sum(dim=1)
    squared = squared - 2 * items @ codes.t()
    # at 0 the root has no slope
    return squared.clamp(min=_SMALLEST).sqrt()


def temperature(largest: float, done: float, power: float) -> float:
    """``α = α_max · (iter / iter_max)^p``, from soft to hard.

    Args:
        largest: α_max.
        done: iter / iter_max, from 0 to 1.
        power: p.
    """
    return largest * min(max(done, 0.0), 1.0) ** power


def nearest_codes(items: Tensor, codes: Sequence[Tensor]) -> Tensor:
    """[n, W] → [n, L] int64: of every level the nearest code to what the levels before leave."""
    found, residual = [], items
    for of_level in codes:
        nearest = distances(residual, of_level).argmin(dim=1)
        found.append(nearest)
        residual = residual - of_level.index_select(0, nearest)
    if not found:
        return torch.zeros([len(items), 0], dtype=torch.int64, device=items.device)
    return torch.stack(found, dim=1)


def embeddings_of(chosen: Tensor, codes: Sequence[Tensor]) -> list[Tensor]:
    """[n, l] codes of some levels → of each [n, W] of the items' node: its codes so far, summed."""
    found: list[Tensor] = []
    for of_items, of_level in zip(chosen.unbind(dim=1), codes, strict=False):
        code = of_level.index_select(0, of_items)
        found.append(found[-1] + code if found else code)
    return found


@dataclass(frozen=True, eq=False)
class SoftNodes:
    """What soft assignment makes of items.

    Attributes:
        nodes: of every level [n, W], what the levels so far say of an item.
        shares: of every level [n, K_l], which codes an item is assigned to.
    """

    nodes: list[Tensor]
    shares: list[Tensor]


def soft_nodes(items: Tensor, codes: Sequence[Tensor], alpha: float) -> SoftNodes:
    """Assign items to codes: ``a = softmax_k(−α d(r, c_k))``, ``c̄ = Σ_k a_k c_k``, r the residual.

    ``r_1 = v``, ``r_l = r_{l−1} − c̄_{l−1}``.

    Args:
        items: [n, W].
        codes: of every level [K_l, W].
        alpha: α; 0 assigns to all alike, infinity to the nearest.
    """
    residual = items
    nodes: list[Tensor] = []
    shares: list[Tensor] = []
    for of_level in codes:
        share = (-alpha * distances(residual, of_level)).softmax(dim=1)
        quantised = share @ of_level
        nodes.append(nodes[-1] + quantised if nodes else quantised)
        shares.append(share)
        residual = residual - quantised
    return SoftNodes(nodes, shares)


class FlopsBalance(nn.Module):
    """``Σ_k (mean over samples of a_k)²`` over the assignments of the last batches together.

    It is 1 / K where all codes are used alike, and 1 where one is used alone.

    Args:
        codes: K.
        batches: that are looked at together, the current one among them.
    """

    earlier: Tensor
    seen: Tensor

    def __init__(self, codes: int, batches: int) -> None:
        super().__init__()
        self.register_buffer("earlier", torch.zeros(batches - 1, codes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, share: Tensor) -> Tensor:
        """The balance with a batch's mean assignment [K], which is remembered without gradient."""
        number = self.earlier.shape[0]
        known = self.seen.clamp(max=number)
        # what was not seen yet is zeros
        mean = (share + self.earlier.sum(dim=0)) / (known + 1)
        if number:
            with torch.no_grad():
                rolled = torch.cat([self.earlier[1:], share.detach().unsqueeze(0)])
                self.earlier.copy_(rolled)
        self.seen.add_(1)
        return mean.square().sum()
