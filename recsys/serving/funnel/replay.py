"""A funnel run again over what a ledger has noted: the same bits, or the requests that differ.

Legend: B requests, N candidates over all requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.serving.funnel.candidates import Candidates
from recsys.serving.funnel.funnel import Funnel
from recsys.serving.funnel.ledger import OF_CANDIDATES, Described, describe, noted


def replay(folder: Path, funnel: Funnel, k: int) -> Sequence[int]:
    """Requests of a ledger for which a funnel gives other bits than are noted.

    Args:
        folder: of the ledger.
        funnel: the same one, over the same generations; its deadlines are left out, and requests
            that missed something when they were noted too.
        k: places of a list.

    Raises:
        ConfigError: the funnel has a cache.
        DataError: the ledger is of another funnel.
    """
    if funnel.cache is not None or funnel.user_sides is not None:
        raise ConfigError(
            "A funnel with a cache cannot be replayed: what was cached at the time is gone; note "
            "a ledger with cache.policy=none."
        )
    if describe(folder) != Described.of(funnel):
        raise DataError(f"{folder} is the ledger of a funnel with other sources or stages.")
    second = replace(funnel.second, deadline_ms=None)
    first = None if funnel.first is None else replace(funnel.first, deadline_ms=None)
    supplies = [replace(one, deadline_ms=None) for one in funnel.supplies]
    calm = replace(funnel, supplies=supplies, first=first, second=second, tolerant=False)
    other: list[int] = []
    for requests, outcome in noted(folder):
        if not outcome.missed:
            again = calm.run(requests, k).candidates
            other += requests.number[_differing(again, outcome.candidates)].tolist()
    return other


def _differing(one: Candidates, other: Candidates) -> NDArray[np.bool_]:
    """[B] which requests do not have the same candidates, scores, ends and places, to the bit."""
    if not np.array_equal(one.lengths, other.lengths):
        return np.ones(len(one.lengths), np.bool_)
    differs = np.zeros(len(one.item), np.bool_)
    pairs = [(getattr(one, name), getattr(other, name)) for name in OF_CANDIDATES]
    pairs += [(one.scores[name], other.scores[name]) for name in other.scores]
    for now, then in pairs:
        unlike = ~((now == then) | ((now != now) & (then != then)))
        differs |= unlike.reshape(len(unlike), -1).any(axis=1)
    found = np.zeros(len(one.lengths), np.bool_)
    found[one.request[differs]] = True
    return found
