"""Negatives from all ranks: each query's pool is made of the items of every rank's batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.pool_softmax import pool_softmax_loss


def pool_softmax_loss_over_ranks(
    queries: Tensor,
    label_items: Tensor,
    pool: Tensor,
    pool_items: Tensor,
    *,
    scale: float = 1.0,
    owner: Tensor | None = None,
    owned: tuple[Tensor, Tensor] | None = None,
    log_q: Tensor | None = None,
    weights: Tensor | None = None,
    num_negatives: int | None = None,
) -> Tensor:
    """``pool_softmax_loss`` of this rank's queries over the distinct items of all ranks.

    The mean of the ranks' losses is the loss that one process has with all queries and all items,
    and so are their gradients: data-parallel training takes just this mean. Every rank must call
    this, also one without queries. In one process it is the loss over the pool's distinct items.

    Owners are of this rank alone, and so distinct from those of other ranks: what an owner has is
    masked by item, on whichever rank the item is. A user with examples on several ranks owns in
    each what that rank says.

    Args:
        queries: [Q, D], of this rank.
        label_items: [Q] int64, the item of each query's target; on some rank's pool.
        pool: [P, D], of this rank; may be empty.
        pool_items: [P] int64, ids of its items, repetitions allowed.
        scale: as in ``pool_softmax_loss``.
        owner: [Q] int64, whose query it is; with ``owned``.
        owned: owners [N] int64 and ids of items that belong to them [N] int64.
        log_q: [P]; the same for an item wherever it is.
        weights: [Q].
        num_negatives: drawn uniformly from the common pool, by each rank for itself; None for all.

    Raises:
        ValueError: (not checked on CUDA) a label with weight is in no rank's pool.
    """
    items, embeddings, first = unite_pools(pool, pool_items)
    target = torch.searchsorted(items, label_items)
    _check_labels(items, target, label_items, weights)
    exclusions = None
    if owner is not None and owned is not None:
        num_owners = int(torch.cat([owner, owned[0]]).max()) + 1 if len(owner) else 0
        exclusions = Owned.from_items(*owned, num_owners, items)
    negatives = None
    if num_negatives is not None:
        negatives = sample_pool(len(items), num_negatives, items.device)
    loss = pool_softmax_loss(
        queries,
        embeddings,
        target,
        scale=scale,
        owner=owner,
        owned=exclusions,
        log_q=None if log_q is None else gather_rows(log_q)[first],
        weights=weights,
        negatives=negatives,
    )
    total = queries.new_tensor(len(queries)) if weights is None else weights.detach().sum()
    return loss * relative_share(total).to(loss.dtype)


def unite_pools(pool: Tensor, pool_items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pool of all ranks' pools, each item once, the same on every rank.

    Of an item that is there several times the first embedding is taken, and gets the gradient:
    where ranks hold the same weights, the others are equal to it.

    Args:
        pool: [P, D], of this rank.
        pool_items: [P] int64, ids of its items.

    Returns:
        The ids of the common pool's items [P'] in ascending order; their embeddings [P', D],
        differentiable; and which of the ranks' rows, gathered, each was taken from [P'] int64.
    """
    items, of_row = torch.unique(gather_rows(pool_items), return_inverse=True)
    row = torch.arange(len(of_row), device=of_row.device)
    first = row.new_zeros(len(items)).scatter_reduce(0, of_row, row, "amin", include_self=False)
    return items, gather_rows(pool).index_select(0, first), first


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks: [N, …] → [sum of N, …].

    Ranks may differ in N. Differentiable: what a rank gets back is the sum over all ranks of the
    gradients for its rows.
    """
    if not _is_distributed():
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = [int(size) for size in counts]
    padding = [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)]
    parts = all_gather(F.pad(rows, padding))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def relative_share(total: Tensor) -> Tensor:
    """This rank's ``total`` over the mean of all ranks' totals; 0 where nobody has any.

    A rank's mean over ``total`` examples times this has the mean of all examples as its mean over
    the ranks, which is what data-parallel training takes. Scalar, float64.
    """
    share = total.double() / mean_over_ranks(total.double())
    return torch.where(total > 0, share, torch.zeros_like(share))


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of all ranks' values, the same on every rank; not differentiable."""
    if not _is_distributed():
        return values.detach()
    total = values.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _check_labels(
    items: Tensor, target: Tensor, label_items: Tensor, weights: Tensor | None
) -> None:
    if items.device.type != "cpu":
        return
    # an item above all of the pool's has the position after the last
    found = torch.cat([items, items.new_full((1,), -1)])[target] == label_items
    missing = ~found if weights is None else ~found & (weights > 0)
    if missing.any():
        raise ValueError(
            f"{int(missing.sum())} labels are items that no rank's pool holds, the first of them "
            f"{int(label_items[missing][0])}"
        )
