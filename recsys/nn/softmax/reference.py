"""`pool_softmax_loss` with all logits in memory: what the tiled paths are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.nn.softmax.exclusions import Owned, expand_ranges


def materialised_loss(
    queries: Tensor,
    pool: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    owner: Tensor | None = None,
    owned: Owned | None = None,
    log_q: Tensor | None = None,
    weights: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """The same function of the same arguments, from logits [Q, P]; at least one query.

    As ``torch.nn.functional.cross_entropy`` has it: a mask of -inf, and a weighted mean that is
    NaN where all weights are 0.
    """
    logits = scale * queries @ pool.T  # [Q, P]
    if log_q is not None:
        logits = logits - log_q
    excluded = torch.zeros_like(logits, dtype=torch.bool)
    if negatives is not None:
        excluded[:] = True
        excluded[:, negatives] = False
    if owner is not None and owned is not None:
        owned = owned.without_others()
        counts = owned.offsets[owner + 1] - owned.offsets[owner]
        row, entry = expand_ranges(owned.offsets[owner], counts)
        excluded[row, owned.items[entry]] = True
    excluded[torch.arange(len(target), device=target.device), target] = False
    logits = logits.masked_fill(excluded, -torch.inf)
    if weights is None:
        return F.cross_entropy(logits, target)
    return F.cross_entropy(logits, target, reduction="none") @ weights / weights.sum()
