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

    Attributes:
        count: [U] how many of the items alive each user has seen.
    """

    def __init__(self, items: WorldItems, users: int) -> None:
        self._items = items
        self._ring = items.most_at_once()
        self._bits = np.zeros((self._ring, -(-users // 8)), np.uint8)
        self._published = 0
        self._last: int | None = None
        self.count: Integers = np.zeros(users, np.int64)

    def advance(self, first: int, last: int) -> None:
        """Go on to the items that are alive all through ``[first, last]``.

        Args:
            first: ms since the start of the log, not before that of the call before.
            last: likewise.
        """
        if self._last is not None:  # until now nobody has seen anything
            expired = self._bits[self._place(self._items.expired(self._last, last))]
            by_user = np.unpackbits(expired, axis=1, count=len(self.count), bitorder="little")
            self.count -= by_user.sum(axis=0, dtype=np.int64)
        self._last = last
        published = self._items.published_by(first)
        new = np.arange(max(self._published, published - self._ring), published)
        self._bits[new % self._ring] = 0
        self._published = published

    def add(self, user: Integers, item: Integers) -> None:
        """Note that users have seen items that are alive and that they had not seen, [n] each."""
        bit = np.left_shift(np.uint8(1), (user & 7).astype(np.uint8))
        np.bitwise_or.at(self._bits, (self._place(item), user >> 3), bit)
        np.add.at(self.count, user, 1)

    def has(self, user: Integers, item: Integers) -> NDArray[np.bool_]:
        """Whether users have seen items that are alive; shapes that go together."""
        byte = self._bits[self._place(item), user >> 3]
        return (byte >> (user & 7).astype(np.uint8)) & np.uint8(1) != 0

    def _place(self, item: Integers) -> Integers:
        return self._items.rank[item] % self._ring
