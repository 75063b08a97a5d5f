"""Which items of a pool are no negatives of which queries: its target and its owner's items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Owned:
    """The items of a pool that belong to each owner, and so are never negatives of its queries.

    Owners are 0 … U-1, for example the users of a batch; an item may belong to several.

    Attributes:
        offsets: [U+1] int64; owner u has ``items[offsets[u]:offsets[u + 1]]``.
        items: [O] int64, positions in the pool.
    """

    offsets: Tensor
    items: Tensor

    @classmethod
    def from_pairs(cls, owner: Tensor, position: Tensor, num_owners: int, pool_size: int) -> Owned:
        """From pairs in any order, equal ones counted once.

        Args:
            owner: [N] int64, owner of each pair.
            position: [N] int64, position in the pool of each pair's item.
            num_owners: U.
            pool_size: P.
        """
        key = torch.unique(owner * pool_size + position)
        counts = torch.bincount(key // max(pool_size, 1), minlength=num_owners)
        return cls(_offsets(counts), key % max(pool_size, 1))

    @classmethod
    def from_items(cls, owner: Tensor, item: Tensor, num_owners: int, pool_items: Tensor) -> Owned:
        """From pairs of an owner and an item's id; every copy of the item in the pool is owned.

        Owning all copies of one's targets is what rules out accidental hits (a negative that is
        the target's item) in a pool that holds an item more than once; one of ``unique_pool`` has
        none.

        Args:
            owner: [N] int64, owner of each pair.
            item: [N] int64, id of each pair's item; one that is not in the pool is left out.
            num_owners: U.
            pool_items: [P] int64, id of each item of the pool.
        """
        order = torch.argsort(pool_items, stable=True)
        in_order, item = pool_items[order], item.contiguous()
        first = torch.searchsorted(in_order, item)
        copies = torch.searchsorted(in_order, item, right=True) - first
        pair, rank = expand_ranges(first, copies)
        return cls.from_pairs(owner[pair], order[rank], num_owners, len(pool_items))

    def among(self, column: Tensor) -> Owned:
        """The same over some items of the pool.

        Args:
            column: [P] int64, what becomes of each position; -1 where the item is left out.
        """
        items = column[self.items]
        kept = torch.cat([items.new_zeros(1), (items >= 0).cumsum(0)])
        return Owned(kept[self.offsets], items[items >= 0])


@dataclass(frozen=True)
class Exclusions:
    """Which columns of a pool are no negatives of which queries.

    Attributes:
        target: [Q] int64, column of each query's target, which is no negative of it; -1 where the
            target is not among the columns.
        owner: [Q] int64, or None where nobody owns anything.
        owned: whose ``items`` are columns; None exactly where ``owner`` is.
    """

    target: Tensor
    owner: Tensor | None = None
    owned: Owned | None = None

    def pairs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The excluded pairs of some queries: the row, counted from the slice's first, and the
        column, both [X] int64; a pair may be there twice.
        """
        target = self.target[rows]
        row = (target >= 0).nonzero().squeeze(1)
        if self.owner is None or self.owned is None:
            return row, target[row]
        owner, offsets = self.owner[rows], self.owned.offsets
        owners_row, entry = expand_ranges(offsets[owner], offsets[owner + 1] - offsets[owner])
        return torch.cat([row, owners_row]), torch.cat([target[row], self.owned.items[entry]])


def expand_ranges(first: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Spell out N ranges ``first[n], …, first[n] + counts[n] - 1``.

    Returns:
        For every number in every range, in order: the range it is of, and the number itself; both
        [sum of counts] int64.

    Example:
        >>> expand_ranges(torch.tensor([5, 0, 8]), torch.tensor([2, 0, 1]))
        (tensor([0, 0, 2]), tensor([5, 6, 8]))
    """
    of_range = torch.repeat_interleave(counts)
    starts = counts.cumsum(0) - counts
    number = torch.arange(len(of_range), device=counts.device) + (first - starts)[of_range]
    return of_range, number


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
