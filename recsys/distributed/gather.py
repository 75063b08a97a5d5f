"""Negatives from all ranks: each query's pool is made of the items of every rank's batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from recsys.nn.softmax.exclusions import Owned
from recsys.nn.softmax.pool import sample_pool
from recsys.nn.softmax.pool_softmax import pool_softmax_loss


@dataclass(frozen=True)
class UnitedPool:
    """The items of all ranks' pools, each once, the same on every rank.

    Attributes:
        items: [P'] int64, their ids in ascending order.
        own: [P] int64, ids of this rank's pool, likewise.
        sizes: items of each rank's pool, by rank.
        row: [P'] int64, which of the ranks' rows, one rank's after the other's, each item is taken
            from: the first; None where there is one rank, whose rows they are.
    """

    items: Tensor
    own: Tensor
    sizes: list[int]
    row: Tensor | None

    def rows(self, own: Tensor) -> Tensor:
        """The rows [P', …] of all items, of which each rank gives those of its own pool [P, …].

        Of an item that several ranks have, the first rank's row is taken, and gets the gradient:
        where ranks hold the same weights, the others are equal to it.
        """
        if self.row is None:
            return own
        return gather_rows(own, self.sizes).index_select(0, self.row)


def pool_softmax_loss_over_ranks(
    queries: Tensor,
    label_items: Tensor,
    pool: Tensor,
    united: UnitedPool,
    *,
    scale: float = 1.0,
    owner: Tensor | None = None,
    owned: Owned | None = None,
    log_q: Tensor | None = None,
    weights: Tensor | None = None,
    num_negatives: int | None = None,
) -> Tensor:
    """``pool_softmax_loss`` of this rank's queries over the items of all ranks' pools.

    The mean of the ranks' losses is the loss that one process has with all queries and all items,
    and so are their gradients: data-parallel training takes just this mean. Every rank must call
    this, also one without queries. In one process it is the loss over the pool.

    Owners are of this rank alone, and so distinct from those of other ranks: what an owner has is
    masked by item, on whichever rank the item is. A user with examples on several ranks owns in
    each what that rank says.

    Args:
        queries: [Q, D], of this rank.
        label_items: [Q] int64, the item of each query's target; on some rank's pool.
        pool: [P, D], of this rank; may be empty.
        united: the items of the ranks' pools (``unite_pools``).
        scale: as in ``pool_softmax_loss``.
        owner: [Q] int64, whose query it is; with ``owned``.
        owned: ids of the items that belong to each owner.
        log_q: [P]; the same for an item wherever it is.
        weights: [Q].
        num_negatives: drawn uniformly from the common pool, by each rank for itself; None for all.

    Raises:
        ValueError: (not checked on CUDA) a label with weight is in no rank's pool.
    """
    items = united.items
    target = torch.searchsorted(items, label_items)
    _check_labels(items, target, label_items, weights)
    negatives = None
    if num_negatives is not None:
        negatives = sample_pool(len(items), num_negatives, items.device)
    loss = pool_softmax_loss(
        queries,
        united.rows(pool),
        target,
        scale=scale,
        owner=owner,
        owned=None if owned is None else owned.in_pool(items),
        log_q=None if log_q is None else united.rows(log_q),
        weights=weights,
        negatives=negatives,
    )
    total = loss.new_full((), len(queries)) if weights is None else weights.detach().sum()
    return loss * relative_share(total).to(loss.dtype)


def unite_pools(*pools: Tensor) -> list[UnitedPool]:
    """Unite the ranks' pools: the first of every rank, the second of every rank, and so on.

    However many there are, each rank asks its device twice: for the sizes of the ranks' pools and
    for those of the united ones. In one process it asks for nothing.

    Args:
        pools: [P] int64 each, ids of the items of this rank's pools, each once and ascending.

    Raises:
        ValueError: (not checked on CUDA) a pool has an item twice, or is not in order.
    """
    for pool in pools:
        if pool.device.type == "cpu" and not (pool[1:] > pool[:-1]).all():
            raise ValueError("the items of a pool must be distinct and in ascending order")
    if not _is_distributed():
        return [UnitedPool(pool, pool, [len(pool)], None) for pool in pools]
    sizes = _sizes_of_ranks([len(pool) for pool in pools], pools[0].device)
    ordered = []
    for pool, of_pool in zip(pools, sizes, strict=True):
        items, row = torch.sort(gather_rows(pool, of_pool), stable=True)
        is_first = F.pad(items[1:] != items[:-1], (1, 0), value=True)[: len(items)]
        ordered.append((items, row, is_first))
    counts: list[int] = torch.stack([is_first.sum() for *_, is_first in ordered]).tolist()
    united = []
    for pool, of_pool, (items, row, is_first), count in zip(
        pools, sizes, ordered, counts, strict=True
    ):
        # the first of each item keep their order, the others come behind them
        first = torch.sort(~is_first, stable=True)[1][:count]
        united.append(UnitedPool(items[first], pool, of_pool, row[first]))
    return united


def gather_rows(rows: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks, in the order of the ranks: [N, …] → [sum of N, …].

    Ranks may differ in N. Differentiable: what a rank gets back is the sum over all ranks of the
    gradients for its rows.

    Args:
        rows: of this rank.
        sizes: N of each rank; else the ranks exchange them, and their devices are waited for.
    """
    if not _is_distributed():
        return rows
    if sizes is None:
        (sizes,) = _sizes_of_ranks([len(rows)], rows.device)
    padding = [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)]
    parts = all_gather(F.pad(rows, padding))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _sizes_of_ranks(own: list[int], device: torch.device) -> list[list[int]]:
    """Of each of this rank's sizes: those of all ranks, by one exchange and one wait."""
    # filled on the device: a copy of the numbers would wait for it, too
    mine = torch.cat([torch.full((1,), size, device=device) for size in own])
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    sizes: list[list[int]] = torch.stack(gathered, dim=1).tolist()
    return sizes


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
