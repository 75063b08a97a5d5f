"""FeedState: what was scored for each user of late (Smart Cache, Khandelwal et al. 2021, §3).

Legend: B requests, M items that are cached for them, n items scored, K tasks, k places.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.cache.stores import Record, Store
from recsys.serving.funnel.candidates import Requests

Integers = NDArray[np.int64]

#: The user of requests by somebody who is not known.
NOBODY = 0


@dataclass(frozen=True, eq=False)
class Entries:
    """What is cached for some requests.

    Attributes:
        lengths: [B] items of each.
        rows: [M] of a ``row_type``, each request's ones scored last first.
    """

    lengths: Integers
    rows: NDArray[np.void]


class FeedState:
    """Per user the items scored in the last hours, at most so many, of one generation of a scorer.

    User 0 stands for whoever is not known, and has none.

    Args:
        store: where users are kept; others may use it, for this generation or others.
        row: the ``row_type`` of the store.
        generation: what has scored; what another one has scored is not used.
        max_age_ms: T1.
        items: of a user, at most; those scored last.
    """

    def __init__(
        self, store: Store, row: np.dtype[np.void], generation: str, max_age_ms: int, items: int
    ) -> None:
        self._store, self.row = store, row
        digest = hashlib.blake2b(generation.encode(), digest_size=8).digest()
        self._generation = int.from_bytes(digest, "big")
        self._max_age_ms, self._items = max_age_ms, items

    def entries(self, requests: Requests) -> Entries:
        """What was scored for the users within T1; what a clock says is yet to come is not."""
        found = [self._of(*one) for one in _pairs(requests)]
        return Entries(
            np.array([len(one) for one in found], np.int64),
            np.concatenate([np.empty(0, self.row), *found]),
        )

    def note(
        self,
        requests: Requests,
        lengths: Integers,
        rows: NDArray[np.void],
        lists: Integers,
    ) -> None:
        """Take in what was scored for B requests, and what they were shown.

        Args:
            requests: of users.
            lengths: [B] items scored of each.
            rows: [n] of them.
            lists: [B, k] items by place; −1 for none.
        """
        ends = np.cumsum(lengths)
        parts = zip(_pairs(requests), ends - lengths, ends, lists, strict=True)
        for (user, moment), first, last, shown in parts:
            if user == NOBODY:
                continue
            fresh, former = rows[first:last], self._of(user, moment)
            kept = former[~np.isin(former["item"], fresh["item"])]
            both = np.concatenate([fresh, kept])[: self._items]
            place, row = np.nonzero(shown[:, None] == both["item"])
            both["place"] = 0
            both["place"][row] = place + 1
            self._store.put(user, Record(self._generation, moment, both))
        if len(requests):
            self._store.expire(int(requests.moment.min()) - self._max_age_ms)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _of(self, user: int, moment: int) -> NDArray[np.void]:
        record = None if user == NOBODY else self._store.get(user)
        if record is None or record.generation != self._generation:
            return np.empty(0, self.row)
        gap = moment - record.rows["moment"]
        return record.rows[(gap >= 0) & (gap <= self._max_age_ms)]


def _pairs(requests: Requests) -> list[tuple[int, int]]:
    return list(zip(requests.user.tolist(), requests.moment.tolist(), strict=True))
