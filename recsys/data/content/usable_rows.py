"""Which item embeddings can be used, and why the others cannot: for training and for an index."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

NOT_FINITE = "embedding holds NaN or infinity"
ZERO_NORM = "embedding has zero norm"
DUPLICATE = "given before"


def usable_rows(ids: pl.Series, embeddings: NDArray) -> tuple[pl.Series, NDArray[np.float32]]:
    """Take the first row of each id whose embedding has a direction.

    Args:
        ids: [N].
        embeddings: [N, W].

    Returns:
        Why each row cannot be used [N], empty where it can, and the embeddings of those that can,
        L2-normalised.
    """
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, so left out
        rows = embeddings.astype(np.float32, copy=False)
    norm = np.linalg.norm(rows.astype(np.float64), axis=1)
    reason = pl.Series(np.select([~np.isfinite(norm), norm == 0], [NOT_FINITE, ZERO_NORM], ""))
    pairs = pl.struct(ids.alias("id"), reason.alias("reason"), eager=True)
    reason = reason.set((reason == "") & ~pairs.is_first_distinct(), DUPLICATE)
    usable = (reason == "").to_numpy()
    return reason, (rows[usable] / norm[usable, None]).astype(np.float32)
