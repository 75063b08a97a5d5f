"""Inverse roots: every method against an eigendecomposition in float64, and what fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.optim.shampoo.config import (
    CoupledHigherOrder,
    CoupledNewton,
    Eigendecomposition,
    QRTracking,
    RootInverse,
)
from recsys.optim.shampoo.roots import inverse_roots
from tests.optim.shampoo.reference import inverse_root

ITERATIONS = [CoupledNewton(), CoupledHigherOrder(), CoupledHigherOrder(order=6)]


def matrices(count: int, width: int, rank: int, seed: int = 0) -> Tensor:
    """[count, width, width]: sums of ``rank`` outer products of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, rank, generator=generator, dtype=torch.float64)
    rows *= torch.logspace(0, -1.5, rank, dtype=torch.float64)
    rows *= torch.logspace(-1, 1, count, dtype=torch.float64).reshape(-1, 1, 1)
    return rows @ rows.mT


def error(roots: Tensor, of: Tensor, root: int, epsilon: float) -> float:
    """Largest relative error (in the largest entry) over the matrices."""
    expected = [inverse_root(matrix.double().numpy(), root, epsilon) for matrix in of]
    return max(
        float(np.abs(one.double().numpy() - two).max() / np.abs(two).max())
        for one, two in zip(roots, expected, strict=True)
    )


@pytest.mark.parametrize("root", [2, 4, 6])
@pytest.mark.parametrize("method", [Eigendecomposition(), QRTracking(), *ITERATIONS])
def test_methods_agree_in_float64(method: RootInverse, root: int) -> None:
    some = matrices(3, 7, 7)
    result = inverse_roots(some, root, 1e-4, method, torch.zeros_like(some))
    assert result.usable.all()
    assert error(result.roots, some, root, 1e-4) < 1e-4


@pytest.mark.parametrize("method", [Eigendecomposition(), QRTracking(), *ITERATIONS])
def test_methods_agree_in_float32(method: RootInverse) -> None:
    some = matrices(3, 12, 12).float()
    result = inverse_roots(some, 4, 1e-2, method, torch.zeros_like(some))
    assert result.usable.all() and result.roots.dtype == torch.float32
    # the largest eigenvalue, 2e3, over the smallest plus ε is 1e5: a rounding of 1.2e-7 of the one
    # is 1.2e-2 of the other, and a quarter of that of its root
    assert error(result.roots, some, 4, 1e-2) < 3e-3


def test_a_root_by_hand() -> None:
    """[[5, 4], [4, 5]] has eigenvalues 1 and 9 along (1, −1) and (1, 1); with ε = 7, 8 and 16."""
    result = inverse_roots(torch.tensor([[[5.0, 4.0], [4.0, 5.0]]]), 2, 7.0, Eigendecomposition())
    one, other = 8**-0.5, 16**-0.5
    expected = torch.tensor([[one + other, other - one], [other - one, one + other]]) / 2
    torch.testing.assert_close(result.roots[0], expected)


def test_eigenvalues_below_epsilon_are_shifted_together() -> None:
    """Eigenvalues −3 and 1 with ε = 1 are −2 and 2; shifted up to 1 and 5."""
    result = inverse_roots(
        torch.diag(torch.tensor([-3.0, 1.0]))[None], 2, 1.0, Eigendecomposition()
    )
    torch.testing.assert_close(result.roots[0], torch.diag(torch.tensor([1.0, 5**-0.5])))


def test_a_higher_order_takes_fewer_steps() -> None:
    some = matrices(1, 6, 6)

    def fewest(order: int) -> int:
        for steps in range(1, 100):
            method = CoupledHigherOrder(order, max_iterations=steps)
            if inverse_roots(some, 4, 1e-4, method).decomposed == 0:
                return steps
        raise AssertionError

    assert fewest(4) < fewest(3) < fewest(2)


def test_tracked_eigenvectors_converge() -> None:
    """Started elsewhere, power iterations on one matrix come to its eigenvectors."""
    some = matrices(2, 8, 8)
    vectors = torch.linalg.qr(matrices(2, 8, 8, seed=1)).Q
    errors = []
    for _ in range(60):
        result = inverse_roots(some, 4, 1e-3, QRTracking(), vectors)
        assert result.eigenvectors is not None
        vectors = result.eigenvectors
        errors.append(error(result.roots, some, 4, 1e-3))
    assert errors[0] > 0.05
    assert errors[-1] < 1e-3


def test_tracked_eigenvectors_follow_a_moving_matrix() -> None:
    """A running mean that moves by 1 % a step, refreshed at each: within a few per cent."""
    generator = torch.Generator().manual_seed(0)
    moving = matrices(1, 8, 8)
    vectors = torch.zeros_like(moving)
    for _ in range(50):
        gradient = torch.randn(1, 8, 8, generator=generator, dtype=torch.float64)
        moving = 0.99 * moving + 0.01 * gradient @ gradient.mT
        result = inverse_roots(moving, 4, 1e-6, QRTracking(), vectors)
        assert result.eigenvectors is not None
        vectors = result.eigenvectors
    assert error(result.roots, moving, 4, 1e-6) < 0.05


def test_only_matrices_without_eigenvectors_are_decomposed() -> None:
    some = matrices(2, 5, 5)
    exact = inverse_roots(some, 4, 1e-6, QRTracking(), torch.zeros_like(some))
    assert exact.eigenvectors is not None
    vectors = torch.linalg.qr(matrices(2, 5, 5, seed=1)).Q
    vectors[1] = 0
    mixed = inverse_roots(some, 4, 1e-6, QRTracking(), vectors)
    torch.testing.assert_close(mixed.roots[1], exact.roots[1])
    assert not torch.allclose(mixed.roots[0], exact.roots[0])


def test_only_what_does_not_converge_is_decomposed() -> None:
    """Nine steps are enough for the identity, not for the other."""
    some = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 1e-3, 1e-6]))])
    result = inverse_roots(some, 4, 1e-9, CoupledNewton(max_iterations=9))
    assert result.usable.all() and result.decomposed == 1
    exact = inverse_roots(some, 4, 1e-9, Eigendecomposition())
    assert exact.decomposed == 0 and torch.equal(result.roots[1], exact.roots[1])


def test_a_decomposition_that_does_not_converge_leaves_the_others() -> None:
    """LAPACK refuses a matrix with NaN, and with it the batch."""
    some = torch.stack([torch.eye(3), torch.full((3, 3), torch.nan), 2 * torch.eye(3)])
    result = inverse_roots(some, 1, 1e-9, Eigendecomposition())
    assert result.usable.tolist() == [True, False, True]
    torch.testing.assert_close(result.roots[2], torch.eye(3) / 2)


def test_a_status_of_the_gpu_library_is_a_failed_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CuSOLVER's statuses are RuntimeErrors, no LinAlgErrors; running out of memory is neither."""
    decompose = torch.linalg.eigh
    message = "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED"
    errors: list[Exception] = [RuntimeError(message), torch.OutOfMemoryError("CUDA out of memory")]

    def in_float64_alone(matrix: Tensor) -> tuple[Tensor, Tensor]:
        if matrix.dtype == torch.float32:
            raise errors[0]
        values, vectors = decompose(matrix)
        return values, vectors

    monkeypatch.setattr(torch.linalg, "eigh", in_float64_alone)
    some = matrices(2, 4, 4).float()
    result = inverse_roots(some, 4, 1e-4, Eigendecomposition())
    assert result.usable.all() and error(result.roots, some, 4, 1e-4) < 1e-5
    del errors[0]
    with pytest.raises(torch.OutOfMemoryError):
        inverse_roots(some, 4, 1e-4, Eigendecomposition())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_epsilon_that_rounding_loses_beside_huge_eigenvalues(dtype: torch.dtype) -> None:
    """Eigenvalues of about -1e14, that are zero but for rounding, are shifted up to ε, not to 0."""
    some = (1e30 * matrices(3, 8, 2)).to(dtype)
    for method in (Eigendecomposition(), QRTracking()):
        result = inverse_roots(some, 2, 1e-12, method, torch.zeros_like(some))
        assert result.usable.all() and result.roots.isfinite().all()
