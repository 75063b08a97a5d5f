"""What users did with the items that they engaged with, beside the engagement that counts.

Legend: n pairs of a user and an item, K actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.stores.engagements.store import EngagementStore


def pair_keys(user: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.int64]:
    """[n] one number for each pair of a user and an item."""
    return user.astype(np.int64) << 32 | item.astype(np.int64)


def actions_taken(
    pairs: NDArray[np.int64], every: EngagementStore, codes: Sequence[int], end_ms: int
) -> NDArray[np.bool_]:
    """Which actions a user took on an item before a moment.

    Args:
        pairs: [n] of ``pair_keys``.
        every: all engagements, repeated ones too.
        codes: K codes of actions.
        end_ms: the moment; what comes at it or later is not looked at.

    Returns:
        [n, K].
    """
    taken = np.zeros((len(pairs), len(codes)), np.bool_)
    before = every.timestamp < end_ms
    for column, code in enumerate(codes):
        of_action = np.flatnonzero(before & (every.action_type == code))
        taken[:, column] = np.isin(pairs, pair_keys(every.user[of_action], every.item[of_action]))
    return taken
