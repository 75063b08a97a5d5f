"""How near the lists of a funnel with a cache are to those that are scored freshly, all of them.

Legend: B requests, k places, U users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.funnel import Funnel

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


class FreshSums:
    """Sums by user of the NDCG against the list that the funnel without a cache would make.

    The gain of an item is its value by fresh predictions, at least 0; places are discounted by
    log2(1 + place); the ideal is the fresh list, rules and exploration included.

    Args:
        users: U.
        every: one visit of so many is looked at.

    Attributes:
        sums: [U, 2] NDCG, and visits that were looked at.
    """

    def __init__(self, users: int, every: int) -> None:
        self._every = every
        self.sums: Doubles = np.zeros((users, 2))

    def add(self, requests: Requests, items: Integers, plain: Funnel) -> None:
        """Look at some of the lists [B, k] of a funnel that is ``plain`` without its cache; −1 for
        no item.
        """
        chosen = np.flatnonzero(requests.number % self._every == 0)
        if not len(chosen):
            return
        of = requests.only(chosen)
        ideal = plain.run(of, items.shape[1]).lists(items.shape[1])
        found, best = (_gain(of, lists, plain) for lists in (items[chosen], ideal))
        known = best > 0
        ndcg = np.stack([found[known] / best[known], np.ones(int(known.sum()))], axis=1)
        np.add.at(self.sums, of.user[known], ndcg)


def _gain(requests: Requests, lists: Integers, funnel: Funnel) -> Doubles:
    """[B] of lists [B, k]."""
    request, place = np.nonzero(lists >= 0)
    lengths = np.bincount(request, minlength=len(requests))
    scores = funnel.second.scorer.score(requests, lengths, lists[request, place])
    value = np.maximum(np.nan_to_num(funnel.value.of(requests, request, scores)), 0)
    gain = np.bincount(request, value / np.log2(2 + place), len(requests))
    return gain.astype(np.float64)
