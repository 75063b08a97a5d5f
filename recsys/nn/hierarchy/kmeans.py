"""Codes by k-means, level by level on what the levels before leave.

Legend: n items, W width of an item embedding, L levels, K_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
import torch
from torch import Tensor

from recsys.nn.hierarchy.soft_assignment import nearest_codes

#: Rounds of Lloyd's algorithm.
_ROUNDS = 20
#: Items of each code that k-means looks at, at most.
_ITEMS_PER_CODE = 256
#: Items whose distances to all codes are in memory.
_ITEMS_AT_A_TIME = 4096


def residual_kmeans(items: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Codes of every level [K_l, W] for items [n, W] on the CPU; n is at least the largest K_l."""
    codes: list[Tensor] = []
    residual = items.float()
    for number, size in enumerate(sizes):
        rows = np.ascontiguousarray(residual.numpy())
        clustering = faiss.Kmeans(
            rows.shape[1],
            size,
            niter=_ROUNDS,
            seed=(seed + number) % 2**31,
            min_points_per_centroid=1,
            max_points_per_centroid=_ITEMS_PER_CODE,
        )
        clustering.train(rows)
        of_level = torch.from_numpy(clustering.centroids.copy())
        codes.append(of_level)
        residual = residual - of_level[nearest_in_parts(residual, of_level)]
    return codes


def nearest_in_parts(items: Tensor, codes: Tensor) -> Tensor:
    """[n] the nearest of some codes [K, W] to each item [n, W], some items at a time."""
    parts = [nearest_codes(some, [codes])[:, 0] for some in items.split(_ITEMS_AT_A_TIME)]
    return torch.cat(parts)


def far_items(items: Tensor, codes: Tensor, nearest: Tensor) -> Tensor:
    """Positions of items [n, W]: the farthest of the largest node, of the second, and so on, then
    the second farthest of each that has one to spare.
    """
    counts = torch.bincount(nearest, minlength=len(codes))
    distance = (items - codes[nearest]).square().sum(dim=1)
    by_distance = distance.argsort(descending=True, stable=True)
    order = by_distance[nearest[by_distance].argsort(stable=True)]  # by node, farthest first
    starts = counts.cumsum(0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts[nearest[order]]
    spare = rank < counts[nearest] - 1
    places = spare.nonzero()[:, 0]
    of_largest = counts[nearest[places]].argsort(descending=True, stable=True)
    places = places[of_largest]
    return places[rank[places].argsort(stable=True)]
