"""Places of a list that are given to what nobody has ranked, with the probability of each.

Legend: B requests, N candidates over all requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.core.hashing import splitmix64
from recsys.serving.funnel.candidates import ALIVE, Candidates, Requests


@dataclass(frozen=True, eq=False)
class Exploration:
    """Places of the list that are kept for what a source finds.

    Attributes:
        source: number of the source.
        places: from 1.
        seed: of the draws, which follow from the request's number and the place.
    """

    source: int
    places: Sequence[int]
    seed: int = 0


def explore(
    candidates: Candidates, requests: Requests, exploration: Exploration, filters: int, k: int
) -> None:
    """Draw for each place one of the source's candidates that passed the filters.

    Every one of those that are not in the list yet is as likely as another; the items at the place
    and below it move down, and what has no place any more ends with the list. A stage that left
    the candidate out takes that back.

    Args:
        candidates: with their positions.
        requests: B.
        exploration: source and places.
        filters: number of the last filter.
        k: places of a list.
    """
    request = candidates.request
    passed = (candidates.death == ALIVE) | (candidates.death > filters)
    of_source = passed & (candidates.sources >> np.uint32(exploration.source) & 1 == 1)
    for place in sorted(one for one in exploration.places if one <= k):
        pool = np.flatnonzero(of_source & (candidates.position == 0))
        sizes = np.bincount(request[pool], minlength=len(requests))
        lengths = np.bincount(request[candidates.position > 0], minlength=len(requests))
        some = np.flatnonzero((sizes > 0) & (lengths >= place - 1))
        first = np.cumsum(sizes) - sizes
        key = requests.number[some].astype(np.uint64) * np.uint64(2**16) + np.uint64(place)
        seed = splitmix64(np.array([exploration.seed], np.uint64))
        drawn = splitmix64(key ^ seed) % sizes[some].astype(np.uint64)
        chosen = pool[first[some] + drawn.astype(np.int64)]
        moved = np.isin(request, some) & (candidates.position >= place)
        candidates.position[moved] += 1
        dropped = candidates.position > k
        candidates.position[dropped] = 0
        candidates.position[chosen] = place
        candidates.death[chosen] = ALIVE
        candidates.propensity[chosen] = 1 / sizes[some]
