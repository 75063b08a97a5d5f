"""Rows of a few users, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.evaluation.baselines.rows import AUTHOR, ITEM, TOPIC, USER, Rows

SIZES = {USER: 10, ITEM: 20, AUTHOR: 5, TOPIC: 5}


def rows(
    user: Sequence[int],
    item: Sequence[int],
    labels: Sequence[Sequence[float]],
    author: Sequence[int] | None = None,
    time: Sequence[int] | None = None,
) -> Rows:
    """Rows without context and topics."""
    count = len(user)
    ids = {USER: user, ITEM: item, AUTHOR: author or [0] * count, TOPIC: [0] * count}
    moments = np.array(time or range(count), np.int64)
    return Rows(
        {name: np.array(values, np.int64) for name, values in ids.items()},
        moments,
        moments,
        np.array(labels, np.float32).reshape(count, -1),
        np.empty((count, 0), np.int32),
        np.empty((count, 0), np.float32),
    )
