"""Users, moments and items that somebody wants scores of, whatever the log holds.

Legend: R rows, Q requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.batches.context import Context


@dataclass(frozen=True, eq=False)
class GivenRows:
    """Rows to be scored, in any order.

    Attributes:
        user: [R] int64 indices; 0 is the unknown user, who has no history.
        item: [R] int64 indices; 0 is the unknown item.
        moment: [R] int64, ms, of each row's request.
        context: raw values of context features, one for all rows or a frame with a row per row.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    moment: NDArray[np.int64]
    context: Context = None

    def __len__(self) -> int:
        return len(self.item)

    def context_of(self, rows: NDArray[np.int64]) -> Context:
        """The context of some rows."""
        return self.context[rows] if isinstance(self.context, pl.DataFrame) else self.context

    @cached_property
    def requests(self) -> Requests:
        """The rows by user and moment: a history is read once for all rows that share it."""
        order = np.lexsort((self.moment, self.user))
        user, moment = self.user[order], self.moment[order]
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (np.diff(user) != 0) | (np.diff(moment) != 0)
        first = np.flatnonzero(is_first)
        return Requests(user[first], moment[first], np.append(first, len(order)), order)


@dataclass(frozen=True, eq=False)
class Requests:
    """Rows by request.

    Attributes:
        user: [Q] indices, ascending.
        moment: [Q] ms, ascending within a user.
        offsets: [Q + 1]: the rows of request q are ``row[offsets[q]:offsets[q + 1]]``.
        row: [R] positions of the rows.
    """

    user: NDArray[np.int64]
    moment: NDArray[np.int64]
    offsets: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, request: int) -> NDArray[np.int64]:
        """Positions of the rows of a request."""
        return self.row[self.offsets[request] : self.offsets[request + 1]]


@dataclass(frozen=True, eq=False)
class Pack:
    """Requests that are computed together, always as many with as many rows.

    Attributes:
        user: [B] indices; what fills up is the unknown user.
        moment: [B] ms.
        rows_per_request: [B], sums to P.
        row: [P] positions of the rows; what fills up repeats the first.
        real: how many of them do not fill up; they are the first.
    """

    user: NDArray[np.int64]
    moment: NDArray[np.int64]
    rows_per_request: NDArray[np.int64]
    row: NDArray[np.int64]
    real: int


def packs(requests: Requests, size: int, rows: int) -> Iterator[Pack]:
    """Cut requests into packs of one shape.

    Libraries choose by the shape of matrices in which order they add; so that a row's score has
    the same bits whatever is scored beside it, every pack has the same numbers of requests and
    rows. A request with more rows than a pack holds is in several.

    Args:
        requests: at least one.
        size: B, requests of a pack; the last is kept free, for the rows that fill up.
        rows: P, rows of a pack; they are not filled up to the last.
    """
    pieces: list[tuple[int, int, int]] = []  # request, first and last row
    held = 0
    for request, (first, last) in enumerate(
        zip(requests.offsets[:-1].tolist(), requests.offsets[1:].tolist(), strict=True)
    ):
        while first < last:
            if len(pieces) == size - 1 or held == rows - 1:
                yield _pack(requests, pieces, size, rows)
                pieces, held = [], 0
            taken = min(last - first, rows - 1 - held)
            pieces.append((request, first, first + taken))
            first, held = first + taken, held + taken
    if pieces:
        yield _pack(requests, pieces, size, rows)


def _pack(requests: Requests, pieces: list[tuple[int, int, int]], size: int, rows: int) -> Pack:
    request, first, last = np.array(pieces, np.int64).T
    real = requests.row[first[0] : last[-1]]  # the pieces lie side by side
    user, moment, counts = (np.zeros(size, np.int64) for _ in range(3))
    user[: len(request)] = requests.user[request]
    moment[: len(request)] = requests.moment[request]
    moment[len(request) :] = moment[0]
    counts[: len(request)] = last - first
    counts[-1] = rows - len(real)
    row = np.concatenate([real, np.repeat(real[:1], rows - len(real))])
    return Pack(user, moment, counts, row, len(real))
