"""Leaving out items by a threshold: of time before the search, of score after it.

Legend: B users, S slots of the index, C candidates per user.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.index.catalogue import SLOT, Catalogue
from recsys.index.faiss.search import Found
from recsys.index.usable_items import FIRST_SEEN, last_known
from recsys.serving.pipeline import Restriction, StepUsers


class TooOld:
    """Leaves out items last seen before ``seen_after`` (ms), and those without a time."""

    name = "age"

    def __init__(self, index: Catalogue, seen_after: int) -> None:
        self._index = index
        self._seen_after = seen_after

    def restrict(self, users: StepUsers) -> Restriction:
        """The slots [S] of items that are young enough, for all users alike."""
        young = self._index.items.filter(last_known() >= self._seen_after)[SLOT]
        eligible = np.zeros(self._index.slots_given, np.bool_)
        eligible[young.to_numpy()] = True
        return Restriction(eligible)


class NotYetThere:
    """Leaves out items first seen at the moment or later; one without a time stays."""

    name = "future"

    def __init__(self, index: Catalogue) -> None:
        self._index = index

    def restrict(self, users: StepUsers) -> Restriction:
        """The slots [S] of items that were there, for all users alike."""
        later = self._index.items.filter(pl.col(FIRST_SEEN) >= users.moment)[SLOT]
        eligible = np.ones(self._index.slots_given, np.bool_)
        eligible[later.to_numpy()] = False
        return Restriction(eligible)


class BelowScore:
    """Leaves out items below a cosine (NxtPost §6.3); quantised indexes have approximate ones."""

    name = "score"

    def __init__(self, min_score: float) -> None:
        self._min_score = min_score

    def keep(self, users: StepUsers, found: Found) -> NDArray[np.bool_]:
        """Which of the candidates [B, C] have a score that is high enough."""
        return found.score >= self._min_score
