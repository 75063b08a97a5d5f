"""Searching an index for each user's best items, without those a user is not to get.

Legend: Q users (queries), W width of an embedding, k items asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys.core.errors import ArtifactError, ConfigError
from recsys.index.faiss.kinds import IndexConfig, exhaustive, search_parameters

#: Slot where a user got fewer than k items; the score there is NaN.
NONE = -1

#: Users searched for at once.
_USERS_PER_STEP = 256
#: How much broader an approximate search gets, step by step, before all items are looked at.
_EFFORTS = (1, 4, 16)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found, the best first.

    Attributes:
        slot: [Q, k] int64, an item's number in the index; −1 where there were no more items.
        score: [Q, k] float32 cosine, of the quantised item for the quantised kinds; NaN where the
            slot is −1.
    """

    slot: NDArray[np.int64]
    score: NDArray[np.float32]


def check_queries(queries: ArrayLike, width: int) -> NDArray[np.float32]:
    """[Q, W] float32, L2-normalised.

    Raises:
        ArtifactError: another width than the index's, NaN or infinity, or a vector of zeros.
    """
    rows = np.asarray(queries, np.float32)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ArtifactError(
            f"The user embeddings have shape {rows.shape}, the index holds item embeddings of "
            f"width {width}: they come from different models; export the user tower and build the "
            "index from the same run."
        )
    norm = np.linalg.norm(rows.astype(np.float64), axis=1)
    for problem, bad in (("NaN or infinity", ~np.isfinite(norm)), ("zeros alone", norm == 0)):
        if bad.any():
            raise ArtifactError(
                f"{int(bad.sum())} of {len(rows)} user embeddings hold {problem} (the first is "
                f"number {int(np.argmax(bad))}), so no item is near them; look at the user tower's "
                "training loss and export an earlier checkpoint."
            )
    return np.ascontiguousarray(rows / norm[:, None], np.float32)


def search(
    index: faiss.Index,
    config: IndexConfig,
    eligible: NDArray[np.bool_],
    queries: NDArray[np.float32],
    k: int,
    exclude: Sequence[NDArray[np.int64]] | None,
) -> Found:
    """The k eligible items with the highest inner product, for each user without his exclusions.

    A user's exclusions are found along with the rest and then dropped, so k + their number is
    asked for. An approximate index that gives fewer than k searches more broadly, at last
    everywhere: fewer than k come back only if there are no more. What is asked for depends on the
    user alone, so that nobody's items depend on who is searched for beside him.

    Args:
        index: of slots.
        config: of the index, resolved.
        eligible: [slots] bool, items that anybody may get.
        queries: [Q, W] normalised.
        k: items per user; may be larger than the corpus.
        exclude: per user slots that he is not to get; None for no exclusions.

    Raises:
        ConfigError: k is below 1.
    """
    if k < 1:
        raise ConfigError(f"k={k} items per user; ask for at least 1.")
    found = Found(
        np.full((len(queries), k), NONE, np.int64), np.full((len(queries), k), np.nan, np.float32)
    )
    nothing = np.empty(0, np.int64)
    left_out = [_among(eligible, slots) for slots in exclude or [nothing] * len(queries)]
    counts = np.array([len(slots) for slots in left_out], np.int64)
    # Powers of two, so that few numbers are asked for, each for many users at once.
    spare = np.where(counts > 0, 2 ** np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
    scope = _Scope(index, config, eligible)
    for number in np.unique(spare):
        alike = np.flatnonzero(spare == number)
        for start in range(0, len(alike), _USERS_PER_STEP):
            users = alike[start : start + _USERS_PER_STEP]
            _search_step(scope, queries, users, k + int(number), left_out, found)
    return found


class _Scope:
    """The items of an index that may be found at all."""

    def __init__(
        self, index: faiss.Index, config: IndexConfig, eligible: NDArray[np.bool_]
    ) -> None:
        self.index, self.config = index, config
        self.items = int(eligible.sum())
        self._selector = None
        if self.items < index.ntotal:
            # FAISS keeps a pointer only, so the bits are kept here.
            self._bits = np.packbits(eligible, bitorder="little")
            self._selector = faiss.IDSelectorBitmap(self._bits)

    def find(
        self, queries: NDArray[np.float32], wanted: int, effort: int | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and slots [Q, ≤ wanted]; no effort looks at every item."""
        wanted = max(min(wanted, self.items), 1)
        if effort is None:
            index, parameters = exhaustive(self.config, self.index, self._selector)
        else:
            index = self.index
            parameters = search_parameters(self.config, self._selector, wanted, effort)
        scores, slots = index.search(queries, wanted, params=parameters)
        return scores, slots


def _search_step(
    scope: _Scope,
    queries: NDArray[np.float32],
    users: NDArray[np.int64],
    wanted: int,
    left_out: Sequence[NDArray[np.int64]],
    found: Found,
) -> None:
    """Fill ``found`` for some users, for each of whom ``wanted`` items are asked for."""
    k = found.slot.shape[1]
    for effort in (*_EFFORTS, None):
        counts = np.array([len(left_out[user]) for user in users])
        scores, slots = scope.find(queries[users], wanted, effort)
        keep = slots != NONE
        for row, user in enumerate(users):
            if counts[row]:
                keep[row] &= ~np.isin(slots[row], left_out[user])
        # Stable: what is kept moves to the front in the order of its scores.
        front = np.argsort(~keep, axis=1, kind="stable")[:, :k]
        there = np.take_along_axis(keep, front, axis=1)
        width = front.shape[1]
        found.slot[users, :width] = np.where(there, np.take_along_axis(slots, front, 1), NONE)
        found.score[users, :width] = np.where(there, np.take_along_axis(scores, front, 1), np.nan)
        short = keep.sum(axis=1) < np.minimum(k, scope.items - counts)
        users = users[short]
        if not len(users):
            return


def _among(eligible: NDArray[np.bool_], slots: ArrayLike) -> NDArray[np.int64]:
    """Those of ``slots`` that a search could find, each once."""
    there = np.unique(np.asarray(slots, np.int64))
    there = there[(there >= 0) & (there < len(eligible))]
    return there[eligible[there]]
