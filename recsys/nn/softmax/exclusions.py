"""Which items of a pool are no negatives of which queries: its target and its owner's items."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Owned:
    """The items that belong to each owner, and so are never negatives of its queries.

    Owners are 0 … U-1, for example the users of a batch; an item may belong to several, and be
    there several times. Sizes follow from those of what is given: no device is waited for.

    Attributes:
        offsets: [U+1] int64; owner u has ``items[offsets[u]:offsets[u + 1]]``.
        items: [O] int64, positions in the pool, -1 for an item that is not in it; or, before the
            pool is known (``in_pool``), ids of items.
    """

    offsets: Tensor
    items: Tensor

    @classmethod
    def from_pairs(cls, owner: Tensor, item: Tensor, num_owners: int) -> Owned:
        """From pairs in any order.

        Args:
            owner: [N] int64, owner of each pair.
            item: [N] int64, each pair's item: its position in the pool, or its id.
            num_owners: U.
        """
        in_order, order = torch.sort(owner, stable=True)
        owners = torch.arange(num_owners + 1, device=owner.device)
        return cls(torch.searchsorted(in_order, owners), item.index_select(0, order))

    def in_pool(self, pool_items: Tensor) -> Owned:
        """With positions in a pool in the place of ids.

        Args:
            pool_items: [P] int64, ids of the pool's items, each once, in ascending order.
        """
        position = torch.searchsorted(pool_items, self.items)
        # an item above all of the pool's has the position after the last
        found = F.pad(pool_items, (0, 1), value=-1)[position] == self.items
        return Owned(self.offsets, position.masked_fill(~found, -1))

    def among(self, column: Tensor) -> Owned:
        """The same over some items of the pool.

        Args:
            column: [P] int64, what becomes of each position; -1 where the item is left out.
        """
        return Owned(self.offsets, F.pad(column, (0, 1), value=-1)[self.items])

    def mask(self, pool_size: int) -> Tensor:
        """[U, pool_size] bool: whether an owner has the item at each position."""
        owners = len(self.offsets) - 1
        row = torch.repeat_interleave(self.offsets.diff(), output_size=len(self.items))
        # one more column takes what is not in the pool
        owned = torch.zeros(owners, pool_size + 1, dtype=torch.bool, device=self.items.device)
        owned[row, self.items] = True
        return owned[:, :-1]

    def without_others(self) -> Owned:
        """Without the items that are not in the pool; a device is asked how many there are."""
        is_in_pool = self.items >= 0
        kept = F.pad(is_in_pool.cumsum(0), (1, 0))
        return Owned(kept[self.offsets], self.items[is_in_pool])


@dataclass(frozen=True)
class Exclusions:
    """Which columns of a pool are no negatives of which queries.

    Attributes:
        target: [Q] int64, column of each query's target, which is no negative of it; -1 where the
            target is not among the columns.
        owner: [Q] int64, or None where nobody owns anything.
        owned: whose ``items`` are columns, or -1; None exactly where ``owner`` is.
    """

    target: Tensor
    owner: Tensor | None = None
    owned: Owned | None = None

    def without_others(self) -> Exclusions:
        """With owned items that are columns; a device is asked how many there are."""
        owned = None if self.owned is None else self.owned.without_others()
        return Exclusions(self.target, self.owner, owned)

    def pairs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """The excluded pairs of some queries: the row, counted from the slice's first, and the
        column, both [X] int64; a pair may be there twice. Owned items must be columns.
        """
        target = self.target[rows]
        row = (target >= 0).nonzero().squeeze(1)
        if self.owner is None or self.owned is None:
            return row, target[row]
        owner, offsets = self.owner[rows], self.owned.offsets
        owners_row, entry = expand_ranges(offsets[owner], offsets[owner + 1] - offsets[owner])
        return torch.cat([row, owners_row]), torch.cat([target[row], self.owned.items[entry]])


def expand_ranges(first: Tensor, counts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Spell out N ranges ``first[n], …, first[n] + counts[n] - 1``.

    Args:
        first: [N] int64.
        counts: [N] int64.
        total: sum of ``counts``, where it is known; else a device is asked for it.

    Returns:
        For every number in every range, in order: the range it is of, and the number itself; both
        [sum of counts] int64.

    Example:
        >>> expand_ranges(torch.tensor([5, 0, 8]), torch.tensor([2, 0, 1]))
        (tensor([0, 0, 2]), tensor([5, 6, 8]))
    """
    of_range = torch.repeat_interleave(counts, output_size=total)
    starts = counts.cumsum(0) - counts
    number = torch.arange(len(of_range), device=counts.device) + (first - starts)[of_range]
    return of_range, number
