"""How alike two versions of embeddings are, and whether one has collapsed: formulas alone.

Legend: U users, F numbers of a user's embedding (all its vectors one behind the other).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Rows of the matrix of cosines that are in memory at a time.
_ROWS = 512


def cosines(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """[U] cosine of each row of [U, F] and the same row of another; NaN where one is all zeros."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(axis=1)
    # rounding may take the quotient over 1
    return np.clip(_divided(products, norms), -1.0, 1.0)


def nearest(values: NDArray[np.floating], neighbours: int) -> NDArray[np.int64]:
    """[U, neighbours] the rows nearest to each row by cosine, itself left out; ties in row order.

    Args:
        values: [U, F], no row all zeros.
        neighbours: fewer than U.
    """
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    found = np.empty((len(unit), neighbours), np.int64)
    for start in range(0, len(unit), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(unit)))
        similarity = unit[rows] @ unit.T
        similarity[rows - start, rows] = -np.inf
        found[rows] = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    return found


def overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """[U] Jaccard index of the sets in the rows of two [U, neighbours]."""
    common = np.array([len(np.intersect1d(a, b)) for a, b in zip(one, other, strict=True)], float)
    return common / (one.shape[1] + other.shape[1] - common)


def overlap_by_chance(users: int, neighbours: int) -> float:
    """About the Jaccard index of two random sets of ``neighbours`` among ``users`` − 1 others.

    They have neighbours² / (users − 1) in common on average.
    """
    common = neighbours**2 / (users - 1)
    return common / (2 * neighbours - common)


def dimensions(values: NDArray[np.floating]) -> tuple[float, float]:
    """Effective rank, and the share of the variance that lies on the first principal component.

    The effective rank is exp(−Σ p log p) with p the singular values of the centred [U, F] divided
    by their sum (Roy and Vetterli, 2007: The effective rank): F where all directions are used
    alike, 1 where all users lie on a line. NaN where users do not differ.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    users, width = centred.shape
    gram = centred @ centred.T if users < width else centred.T @ centred
    variance = np.clip(np.linalg.eigvalsh(gram), 0.0, None)  # ascending
    # what rounding leaves of directions that are not there
    variance[variance <= variance.max(initial=0.0) * max(users, width) * 1e-15] = 0.0
    if not variance.any():
        return float("nan"), float("nan")
    singular = np.sqrt(variance[variance > 0])
    p = singular / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum())), float(variance[-1] / variance.sum())


def _divided(values: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(values, by, out=np.full_like(values, np.nan), where=by > 0)
