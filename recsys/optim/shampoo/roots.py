"""Inverse roots of symmetric positive semi-definite matrices, a batch at a time.

Legend: K matrices, d their width, p the root: what is sought is (A + ε·I)^(−1/p).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys.optim.shampoo.config import (
    CoupledHigherOrder,
    CoupledNewton,
    Eigendecomposition,
    QRTracking,
    RootInverse,
)


@dataclass(frozen=True)
class InverseRoots:
    """What a method makes of K matrices.

    Attributes:
        roots: [K, d, d]; where it is not usable, anything.
        usable: [K], whether they could be computed.
        eigenvectors: [K, d, d] of ``QRTracking``, in columns.
        decomposed: how many of an iteration that did not converge come from a decomposition.
    """

    roots: Tensor
    usable: Tensor
    eigenvectors: Tensor | None = None
    decomposed: int = 0


def inverse_roots(
    matrices: Tensor,
    root: int,
    epsilon: float,
    method: RootInverse,
    eigenvectors: Tensor | None = None,
) -> InverseRoots:
    """Inverse roots of ``matrices`` + ε·I; what fails is tried again.

    A matrix whose iteration does not converge is decomposed instead, and a decomposition that fails
    is tried again in float64. Eigenvalues are shifted up together where the smallest is below ε,
    which iterations, who do not know them, cannot do.

    Args:
        matrices: [K, d, d], finite.
        root: p.
        epsilon: ε.
        method: how.
        eigenvectors: [K, d, d] of the last time for ``QRTracking``; zeros where there was none.
    """
    result = _METHODS[type(method)](matrices, root, epsilon, method, eigenvectors)
    failed = (~result.usable).nonzero().squeeze(1)
    if len(failed) == 0:
        return result
    iteration = isinstance(method, CoupledNewton | CoupledHigherOrder)
    if matrices.dtype == torch.float64 and not iteration:
        return result
    again = inverse_roots(
        matrices[failed] if iteration else matrices[failed].double(),
        root,
        epsilon,
        Eigendecomposition() if iteration else method,
        None if eigenvectors is None else eigenvectors[failed].double(),
    )
    result.roots[failed] = again.roots.to(matrices.dtype)
    result.usable[failed] = again.usable
    if result.eigenvectors is not None and again.eigenvectors is not None:
        result.eigenvectors[failed] = again.eigenvectors.to(matrices.dtype)
    return replace(result, decomposed=int(again.usable.sum()) if iteration else 0)


def _eigendecomposition(
    matrices: Tensor, root: int, epsilon: float, _: Eigendecomposition, __: Tensor | None
) -> InverseRoots:
    values, vectors = _eigh(_plus_identity(matrices, epsilon))
    return _from_eigenvectors(values, vectors, root, epsilon)


def _tracked(
    matrices: Tensor, root: int, epsilon: float, method: QRTracking, eigenvectors: Tensor | None
) -> InverseRoots:
    assert eigenvectors is not None
    shifted = _plus_identity(matrices, epsilon)
    known = eigenvectors.flatten(1).any(dim=1)
    vectors = eigenvectors.clone()
    if not known.all():
        vectors[~known] = _eigh(shifted[~known])[1]
    if known.any():
        vectors[known] = _followed(shifted[known], vectors[known], method.power_iterations)
    result = _from_eigenvectors(_rayleigh(shifted, vectors), vectors, root, epsilon)
    return InverseRoots(result.roots, result.usable, vectors)


def _followed(matrices: Tensor, vectors: Tensor, power_iterations: int) -> Tensor:
    """One refresh of tracked eigenvectors, those of large eigenvalues first."""
    order = _rayleigh(matrices, vectors).argsort(dim=1, descending=True)  # [K, d]
    vectors = vectors.gather(2, order.unsqueeze(1).expand_as(vectors))
    for _ in range(power_iterations):
        vectors = torch.linalg.qr(torch.bmm(matrices, vectors)).Q
    return vectors


def _rayleigh(matrices: Tensor, vectors: Tensor) -> Tensor:
    """[K, d]: vᵀ·A·v of every column v."""
    return (vectors * torch.bmm(matrices, vectors)).sum(dim=1)


def _newton(
    matrices: Tensor, root: int, epsilon: float, method: CoupledNewton, _: Tensor | None
) -> InverseRoots:
    return _coupled(matrices, root, epsilon, 2, method.max_iterations, method.tolerance)


def _higher_order(
    matrices: Tensor, root: int, epsilon: float, method: CoupledHigherOrder, _: Tensor | None
) -> InverseRoots:
    return _coupled(matrices, root, epsilon, method.order, method.max_iterations, method.tolerance)


_METHODS: dict[type, Callable[[Tensor, int, float, Any, Tensor | None], InverseRoots]] = {
    Eigendecomposition: _eigendecomposition,
    QRTracking: _tracked,
    CoupledNewton: _newton,
    CoupledHigherOrder: _higher_order,
}


def _plus_identity(matrices: Tensor, epsilon: float) -> Tensor:
    shifted = matrices.clone()
    shifted.diagonal(dim1=1, dim2=2).add_(epsilon)
    return shifted


def _eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [K, d] and eigenvectors [K, d, d]; NaN where they cannot be computed."""
    try:
        return tuple(torch.linalg.eigh(matrices))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # a LinAlgError of LAPACK, or a status of cuSOLVER
        if len(matrices) == 1:
            return torch.full_like(matrices[:, 0], torch.nan), torch.full_like(matrices, torch.nan)
    parts = [_eigh(matrix.unsqueeze(0)) for matrix in matrices]
    return torch.cat([values for values, _ in parts]), torch.cat([vectors for _, vectors in parts])


def _from_eigenvectors(values: Tensor, vectors: Tensor, root: int, epsilon: float) -> InverseRoots:
    shift = (epsilon - values.amin(dim=1, keepdim=True)).clamp(min=0)  # [K, 1]
    shifted = values + shift
    if values.dtype == torch.float64:  # no wider type is left to find an ε that rounding lost
        shifted = shifted.clamp(min=epsilon)
    powers = shifted.pow(-1 / root)
    roots = torch.bmm(vectors * powers.unsqueeze(1), vectors.mT)
    return InverseRoots(roots, roots.isfinite().flatten(1).all(dim=1))


def _coupled(
    matrices: Tensor, root: int, epsilon: float, order: int, max_iterations: int, tolerance: float
) -> InverseRoots:
    """X·T → A^(−1/p) while M = X^p·A goes to the identity, M ← T^p·M.

    T is the series of M^(−1/p) = (I − R)^(−1/p) in R = I − M, cut after ``order`` terms (Lakić,
    On the computation of the matrix k-th root, 1998). A is scaled to eigenvalues of at most 1,
    from where it converges.
    """
    identity = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    shifted = _plus_identity(matrices, epsilon)
    # both norms bound the largest eigenvalue from above
    row_sums = shifted.abs().sum(dim=2).amax(dim=1)
    scale = torch.minimum(row_sums, torch.linalg.matrix_norm(shifted)).reshape(-1, 1, 1)
    coupled = shifted / scale
    iterate = scale.pow(-1 / root) * identity
    roots = torch.full_like(matrices, torch.nan)
    usable = torch.zeros(len(matrices), dtype=torch.bool, device=matrices.device)
    for _ in range(max_iterations + 1):
        distance = (coupled - identity).abs().amax(dim=(1, 2))
        converged = (distance <= tolerance) & ~usable
        roots[converged] = iterate[converged]
        usable |= converged
        if bool((usable | ~distance.isfinite()).all()):
            break
        factor = _inverse_root_series(identity - coupled, root, order)
        iterate = torch.bmm(iterate, factor)
        coupled = torch.bmm(torch.linalg.matrix_power(factor, root), coupled)
    roots = (roots + roots.mT) / 2
    return InverseRoots(roots, usable & roots.isfinite().flatten(1).all(dim=1))


def _inverse_root_series(residual: Tensor, root: int, order: int) -> Tensor:
    """The first ``order`` terms of (I − R)^(−1/p), by Horner's rule."""
    coefficients = [1.0]
    for k in range(1, order):
        coefficients.append(coefficients[-1] * (1 / root + k - 1) / k)
    series = torch.zeros_like(residual)
    for coefficient in reversed(coefficients):
        series = torch.bmm(residual, series)
        series.diagonal(dim1=1, dim2=2).add_(coefficient)
    return series
