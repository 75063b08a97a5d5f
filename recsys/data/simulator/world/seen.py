"""Which of the items alive each user has seen, a bit each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.simulator.world.items import WorldItems

Integers = NDArray[np.int64]


class SeenItems:
    """A ring of items in the order of their publication, each with a bit per user.

    What was published so long ago that it has expired makes room for what is published now.

    Args:
        items: of the world.
        users: how many there are.
    """

    def __init__(self, items: WorldItems, users: int) -> None:
        self._items = items
        self._ring = items.most_at_once()
        self._bits = np.zeros((self._ring, -(-users // 8)), np.uint8)
        self._published = 0

    def advance(self, time: int) -> None:
        """Make room for what is published up to a moment, in ms since the start of the log."""
        published = self._items.published_by(time)
        first = max(self._published, published - self._ring)
        self._bits[np.arange(first, published) % self._ring] = 0
        self._published = max(self._published, published)

    def add(self, user: Integers, item: Integers) -> None:
        """Note that users have seen items, [n] each."""
        bit = np.left_shift(np.uint8(1), (user & 7).astype(np.uint8))
        np.bitwise_or.at(self._bits, (self._items.rank[item] % self._ring, user >> 3), bit)

    def has(self, user: Integers, item: Integers) -> NDArray[np.bool_]:
        """Whether users have seen items that are alive; shapes that go together."""
        byte = self._bits[self._items.rank[item] % self._ring, user >> 3]
        return (byte >> (user & 7).astype(np.uint8)) & np.uint8(1) != 0

    def count(self, user: Integers, items: Integers) -> Integers:
        """How many of some items that are alive each user has seen, [B] of [B] and [N]."""
        return self.has(user[:, None], items[None, :]).sum(axis=1)
