"""Repairs between versions: maps from the embeddings of one version to those of another.

A model trained anew, or trained on, may say the same in other coordinates, and a consumer that was
trained on the former ones is lost. A map that is fitted on users of both versions gives it back
what it knows. All are fitted per vector of the user, in float64.

Legend: U users, N vectors of a user, W width of a vector, V versions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AffineMap:
    """``y = x @ matrix + offset``, for each vector of a user its own.

    Attributes:
        matrix: [N, W, W].
        offset: [N, W].
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """[U, N, W] embeddings of one version in the coordinates of the other."""
        mapped = np.matmul(values.transpose(1, 0, 2), self.matrix)  # [N, U, W]
        return (mapped.transpose(1, 0, 2) + self.offset).astype(np.float32)


def orthogonal_map(source: NDArray[np.floating], target: NDArray[np.floating]) -> AffineMap:
    """The rotation or reflection that takes ``source`` nearest to ``target``.

    min ‖X R − Y‖ over R Rᵀ = 1 is R = P Qᵀ, where Xᵀ Y = P S Qᵀ (Schönemann, 1966: A generalized
    solution of the orthogonal Procrustes problem). Lengths and angles stay as they are.

    Args:
        source: [U, N, W] embeddings to be mapped.
        target: [U, N, W] the same users' embeddings in the wanted coordinates.
    """
    x, y = _per_vector(source), _per_vector(target)
    left, _, right = np.linalg.svd(x.transpose(0, 2, 1) @ y)
    matrix: NDArray[np.float64] = left @ right
    return AffineMap(matrix, np.zeros(matrix.shape[:2]))


def low_rank_map(
    source: NDArray[np.floating],
    target: NDArray[np.floating],
    rank: int,
    ridge: float = 1e-3,
) -> AffineMap:
    """The identity, corrected by an offset and a matrix of low rank.

    y = x + b + (x − x̄) M, where M is the reduced-rank ridge regression of y − x on x (Mukherjee and
    Zhu, 2011: Reduced rank ridge regression): M = (XᵀX + λ)⁻¹ Xᵀ D Q Qᵀ with Q the ``rank`` first
    eigenvectors of Mᵀ (XᵀX + λ) M of the full M. What the versions have in common stays
    untouched, so a low rank is no loss of directions. With the full rank and no ridge it is the
    affine map of least squares.

    Args:
        source: [U, N, W] embeddings to be mapped.
        target: [U, N, W] the same users' embeddings in the wanted coordinates.
        rank: of M, at most W.
        ridge: λ as a share of the mean variance of a column, times U.
    """
    x, y = _per_vector(source), _per_vector(target)
    mean = x.mean(axis=1, keepdims=True)  # [N, 1, W]
    shift = (y - x).mean(axis=1, keepdims=True)
    centred, difference = x - mean, y - x - shift
    width = x.shape[-1]
    gram = centred.transpose(0, 2, 1) @ centred  # [N, W, W]
    scale = np.trace(gram, axis1=1, axis2=2) / width
    gram += (ridge * scale)[:, None, None] * np.eye(width)
    full = np.linalg.pinv(gram, hermitian=True) @ (centred.transpose(0, 2, 1) @ difference)
    _, vectors = np.linalg.eigh(full.transpose(0, 2, 1) @ gram @ full)  # the largest are the last
    kept = vectors[:, :, width - min(rank, width) :]
    matrix = full @ kept @ kept.transpose(0, 2, 1)
    return AffineMap(np.eye(width) + matrix, (shift - mean @ matrix)[:, 0])


def mean_of_versions(
    values: NDArray[np.floating], known: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The mean of a user's embeddings over the versions in which there is one.

    Args:
        values: [V, U, N, W].
        known: [V, U] whether there is one.

    Returns:
        [U, N, W], zeros where no version has one, and [U] whether one has.
    """
    count = known.sum(axis=0)  # [U]
    total = np.where(known[..., None, None], values, 0.0).sum(axis=0, dtype=np.float64)
    return (total / np.maximum(count, 1)[:, None, None]).astype(np.float32), count > 0


def _per_vector(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """[N, U, W]."""
    return values.astype(np.float64).transpose(1, 0, 2)
