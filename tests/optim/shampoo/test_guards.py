"""What Shampoo refuses, and what it does when numbers go wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from recsys.core.errors import ArtifactError, ConfigError, TrainingError
from recsys.optim import (
    AdaGradGrafting,
    AdamGrafting,
    CoupledHigherOrder,
    CoupledNewton,
    DDPDistribution,
    DistributedShampoo,
    Momentum,
    QRTracking,
    RMSpropGrafting,
)


def weights(*shape: int, seed: int = 0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"betas": (0.9,)},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, 0.0)},
        {"betas": (0.9, 1.1)},
        {"epsilon": 0.0},
        {"weight_decay": -0.1},
        {"weight_decay_type": "L2"},
        {"max_preconditioner_dim": 0},
        {"max_preconditioner_dim": 8.0},
        {"precondition_frequency": 0},
        {"precondition_frequency": 5, "start_preconditioning_step": 4},
        {"precondition_frequency": 2.5},
        {"start_preconditioning_step": 0},
        {"start_preconditioning_step": 1.5},
        {"preconditioner_dtype": torch.float16},
        {"preconditioner_dtype": torch.bfloat16},
        {"grafting": "adam"},
        {"momentum": 0.9},
        {"root_inverse": "newton"},
        {"lr": "0.1"},
        {"lr": None},
        {"lr": True},
        {"betas": 0.9},
        {"betas": None},
        {"betas": ("0.9", 0.99)},
        {"betas": (0.9, True)},
        {"epsilon": "1e-12"},
        {"epsilon": None},
        {"weight_decay": None},
        {"weight_decay": True},
        {"weight_decay_type": None},
        {"weight_decay_type": ["l2"]},
        {"max_preconditioner_dim": True},
        {"max_preconditioner_dim": None},
        {"precondition_frequency": "50"},
        {"precondition_frequency": True},
        {"start_preconditioning_step": None},
        {"start_preconditioning_step": "5"},
        {"use_bias_correction": "yes"},
        {"use_bias_correction": None},
        {"spread_root_inverse": 1},
        {"preconditioner_dtype": "float32"},
        {"grafting": AdamGrafting},
        {"momentum": "heavy"},
        {"root_inverse": CoupledNewton},
        {"root_inverse": False},
        {"max_failures": 0},
        {"max_failures": "3"},
        {"max_failures": None},
        {"max_failures": 1.5},
        {"distributed": True},
        {"distributed": "ddp"},
    ],
    ids=str,
)
def test_settings_that_cannot_work(wrong: dict[str, Any]) -> None:
    name = list(wrong)[-1]
    with pytest.raises(ConfigError, match=f"Shampoo: {name} is .* must be"):
        DistributedShampoo([weights(2, 2)], **wrong)
    if name not in ("max_failures", "distributed"):
        with pytest.raises(ConfigError, match=name):
            DistributedShampoo([{"params": [weights(2, 2)], **wrong}])


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaGradGrafting(epsilon=0.0),
        lambda: AdamGrafting(beta2=0.0),
        lambda: RMSpropGrafting(beta2=1.5),
        lambda: AdamGrafting(epsilon=-1.0),
        lambda: Momentum(momentum=1.0),
        lambda: Momentum(dampening=-0.1),
        lambda: CoupledNewton(max_iterations=0),
        lambda: CoupledNewton(tolerance=0.0),
        lambda: CoupledHigherOrder(order=1),
        lambda: QRTracking(power_iterations=0),
        lambda: DDPDistribution(communication_dtype=torch.float64),
        lambda: AdaGradGrafting(epsilon="small"),  # type: ignore[arg-type]
        lambda: AdamGrafting(beta2=None),  # type: ignore[arg-type]
        lambda: RMSpropGrafting(beta2=True),
        lambda: RMSpropGrafting(epsilon=float("nan")),
        lambda: Momentum("0.9"),  # type: ignore[arg-type]
        lambda: Momentum(False),
        lambda: Momentum(use_nesterov=None),  # type: ignore[arg-type]
        lambda: CoupledNewton(max_iterations=2.5),  # type: ignore[arg-type]
        lambda: CoupledNewton(tolerance="1e-5"),  # type: ignore[arg-type]
        lambda: CoupledHigherOrder(order=None),  # type: ignore[arg-type]
        lambda: CoupledHigherOrder(order=2.5),  # type: ignore[arg-type]
        lambda: QRTracking(power_iterations=True),
        lambda: DDPDistribution(communication_dtype="float32"),  # type: ignore[arg-type]
        lambda: DDPDistribution(ranks_per_group=0),
        lambda: DDPDistribution(ranks_per_group="2"),  # type: ignore[arg-type]
    ],
)
def test_parts_that_cannot_work(make: Any) -> None:
    with pytest.raises(ConfigError, match="must be"):
        make()


def test_an_unknown_setting_of_a_group() -> None:
    with pytest.raises(ConfigError, match=r"precondition_freq.*precondition_frequency"):
        DistributedShampoo([{"params": [weights(2)], "precondition_freq": 2}])


def test_whole_numbers_are_no_weights() -> None:
    with pytest.raises(ConfigError, match=r"shape \(2,\) is torch.int64"):
        DistributedShampoo([torch.ones(2, dtype=torch.int64)])


def test_distribution_needs_processes() -> None:
    with pytest.raises(ConfigError, match="init_process_group"):
        DistributedShampoo([weights(2)], distributed=DDPDistribution())


def test_sparse_gradients_are_refused() -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    dense = weights(3)
    optimizer = DistributedShampoo(
        [("dense", dense), *((f"users.{n}", p) for n, p in embedding.named_parameters())]
    )
    embedding(torch.tensor([1])).sum().backward()
    dense.grad = torch.ones(3)
    before = dense.clone()
    with pytest.raises(ConfigError, match=r"users\.weight is sparse.*fused"):
        optimizer.step()
    assert torch.equal(dense, before)


def test_a_gradient_of_nan_leaves_its_parameter_alone() -> None:
    """The other parameter goes on; then both do as if the step had brought no gradient."""
    both, reference = [weights(3, 4), weights(5)], [weights(3, 4), weights(5)]
    options: dict[str, Any] = {"betas": (0.9, 0.9), "grafting": AdamGrafting(), "epsilon": 1e-4}
    optimizer = DistributedShampoo(both, **options)
    other = DistributedShampoo(reference, **options)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for one, two in zip(both, reference, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            two.grad = one.grad.clone()
        if step == 2:
            both[0].grad[1, 2] = float("nan")
            reference[0].grad = None
            with pytest.warns(UserWarning, match=r"shape \(3, 4\) is not finite"):
                optimizer.step()
        else:
            optimizer.step()
        other.step()
        assert all(torch.equal(one, two) for one, two in zip(both, reference, strict=True))
    assert optimizer.refused_gradients == 1


def test_gradients_that_stay_infinite_stop_the_training() -> None:
    one = weights(3)
    optimizer = DistributedShampoo([("bias", one)], max_failures=2)
    before = one.clone()
    one.grad = torch.tensor([1.0, float("inf"), 0.0])
    with pytest.warns(UserWarning):
        optimizer.step()
    with pytest.raises(TrainingError, match="gradient of bias is not finite for the 2th step"):
        optimizer.step()
    assert torch.equal(one, before)
    assert not optimizer.state[one]["block_0.factor_0"].any()


def test_a_factor_matrix_that_overflows_stops_the_training() -> None:
    """1e30 is a float32, its square is not."""
    one = weights(2, 3)
    optimizer = DistributedShampoo([("head.weight", one)], max_preconditioner_dim=3)
    one.grad = torch.full((2, 3), 1e30)
    with pytest.raises(
        TrainingError, match=r"factor matrix 0 of block 0 \(2, 3\) of head.weight is not finite"
    ):
        optimizer.step()


def test_a_root_that_fails_keeps_the_last_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAPACK fails from the second refresh on."""
    one = weights(2, 2)
    optimizer = DistributedShampoo(
        [("layer", one)],
        betas=(0.0, 1.0),
        epsilon=1e-12,
        max_preconditioner_dim=2,
        max_failures=3,
    )
    one.grad = 2 * torch.eye(2)
    optimizer.step()
    root = optimizer.state[one]["block_0.inverse_root_0"]
    good = root.clone()
    torch.testing.assert_close(good, 4**-0.25 * torch.eye(2))

    def failing(_: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("linalg.eigh: the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    for failures in (2, 4):
        optimizer.step()
        assert torch.equal(root, good)
        assert optimizer.kept_roots == failures
    place = re.escape("factor matrix 0 of block 0 (2, 2) of layer")
    with pytest.raises(TrainingError, match=f"{place}.*3 times in a row"):
        optimizer.step()


@pytest.mark.parametrize("method", [CoupledNewton(), CoupledHigherOrder()])
def test_an_iteration_that_does_not_converge_is_a_decomposition(method: Any) -> None:
    """Bias and matrix lack full rank, and the default epsilon is too small for iterations."""
    ours, exact = [weights(4), weights(3, 5)], [weights(4), weights(3, 5)]
    options: dict[str, Any] = {"max_preconditioner_dim": 5, "grafting": AdamGrafting()}
    optimizer = DistributedShampoo(ours, root_inverse=method, max_failures=1, **options)
    other = DistributedShampoo(exact, **options)
    for step in range(2):
        for number, (one, two) in enumerate(zip(ours, exact, strict=True)):
            one.grad = torch.zeros_like(one)
            one.grad[..., step] = 1.0 + number
            two.grad = one.grad.clone()
        optimizer.step()
        other.step()
    assert optimizer.kept_roots == 0 and optimizer.decomposed_roots > 0
    for one, two in zip(ours, exact, strict=True):
        torch.testing.assert_close(one, two)


def test_roots_that_were_due_without_a_gradient_come_with_the_next() -> None:
    """Steps 2, 4 and 6 are due; the second parameter has gradients in 1, 3, 5 and 7 alone."""
    always, between = weights(3), weights(3)
    optimizer = DistributedShampoo([always, between], betas=(0.0, 1.0), precondition_frequency=2)
    computed = []
    for step in range(1, 8):
        always.grad = torch.ones(3)
        between.grad = torch.eye(3)[step % 3] if step % 2 else None
        root = optimizer.state[between]["block_0.inverse_root_0"]
        before = root.clone()
        optimizer.step()
        computed.append(not torch.equal(before, root))
        assert bool(optimizer.state[between]["block_0.overdue"]) == (step % 2 == 0)
    assert computed == [False, False, True, False, True, False, True]
    # (1, 1, 1) and (0, 0, 1): G·Gᵀ of the steps 1, 5 and 7, 3 are the three unit vectors
    matrix = torch.diag(torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(
        optimizer.state[between]["block_0.inverse_root_0"], torch.linalg.inv(matrix).sqrt()
    )


def test_a_large_gradient_is_no_infinite_one() -> None:
    """The square of 1e30 is not in float32."""
    one = weights(3)
    optimizer = DistributedShampoo([one], preconditioner_dtype=torch.float64)
    one.grad = torch.full((3,), 1e30)
    optimizer.step()
    assert optimizer.refused_gradients == 0


def test_a_state_of_other_settings_is_refused() -> None:
    one = weights(4, 4)
    state = DistributedShampoo([("layer", one)]).state_dict()
    for options in (
        {"grafting": AdamGrafting()},
        {"max_preconditioner_dim": 2},
        {"betas": (0.0, 1.0)},
        {"root_inverse": QRTracking()},
    ):
        with pytest.raises(ArtifactError, match="layer does not fit at block_0"):
            DistributedShampoo([("layer", one)], **options).load_state_dict(state)
    with pytest.raises(ArtifactError, match=r"\[1\] parameters.*\[2\]"):
        DistributedShampoo([one, weights(2)]).load_state_dict(state)
    adam = torch.optim.Adam([one])
    one.grad = torch.ones(4, 4)
    adam.step()
    with pytest.raises(ArtifactError, match="another optimiser"):
        DistributedShampoo([("layer", one)]).load_state_dict(adam.state_dict())
