"""Steps against the published implementation's trajectories and a reference in NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.optim import (
    AdaGradGrafting,
    AdamGrafting,
    CoupledHigherOrder,
    CoupledNewton,
    DistributedShampoo,
    Momentum,
    QRTracking,
    RMSpropGrafting,
    SGDGrafting,
)
from tests.optim.shampoo.reference import Reference, Settings

TRAJECTORIES = sorted((Path(__file__).parent / "trajectories").glob("*.npz"))


def grafting_of(name: str | None, beta2: float, epsilon: float) -> Any:
    return {
        None: lambda: None,
        "sgd": lambda: SGDGrafting(),
        "adagrad": lambda: AdaGradGrafting(epsilon),
        "rmsprop": lambda: RMSpropGrafting(beta2, epsilon),
        "adam": lambda: AdamGrafting(beta2, epsilon),
    }[name]()


def relative(value: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(value.detach().numpy() - expected).max() / np.abs(expected).max())


def test_there_are_trajectories() -> None:
    assert len(TRAJECTORIES) == 7


@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.stem)
def test_trajectory_of_the_published_implementation(path: Path) -> None:
    data = np.load(path)
    given_settings = json.loads(str(data["settings"]))
    grafting = given_settings.pop("grafting")
    if grafting is not None:
        grafting = grafting_of(grafting["type"], grafting.get("beta2", 0), grafting["epsilon"])
    momentum = given_settings.pop("momentum", None)
    count = sum(name.startswith("initial_") for name in data)
    parameters = [torch.nn.Parameter(torch.tensor(data[f"initial_{i}"])) for i in range(count)]
    optimizer = DistributedShampoo(
        parameters,
        **given_settings,
        grafting=grafting,
        momentum=Momentum(**momentum) if momentum else None,
        preconditioner_dtype=torch.float64,
    )
    for step in range(len(data["gradients_0"])):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.tensor(data[f"gradients_{i}"][step])
        optimizer.step()
        for i, parameter in enumerate(parameters):
            assert relative(parameter, data[f"parameters_{i}"][step]) < 1e-6


def optimizer_of(
    s: Settings, parameters: list[torch.nn.Parameter], **more: Any
) -> DistributedShampoo:
    momentum = Momentum(s.momentum, s.dampening, s.nesterov) if s.momentum else None
    return DistributedShampoo(
        parameters,
        lr=s.lr,
        betas=(s.beta1, s.beta2),
        epsilon=s.epsilon,
        weight_decay=s.weight_decay,
        weight_decay_type="l2" if s.l2 else "decoupled",
        max_preconditioner_dim=s.max_dim,
        precondition_frequency=s.frequency,
        start_preconditioning_step=s.start,
        use_bias_correction=s.bias_correction,
        grafting=grafting_of(s.grafting, s.grafting_beta2, s.grafting_epsilon),
        momentum=momentum,
        preconditioner_dtype=torch.float64,
        **more,
    )


SHAPES = [(), (1,), (5,), (4, 1, 3), (6, 5), (1, 7), (3, 2, 2, 3), (3, 4, 3), (2, 9)]


@st.composite
def cases(draw: Any) -> tuple[Settings, list[tuple[int, ...]], int]:
    frequency = draw(st.integers(1, 3))
    some = Settings(
        beta1=draw(st.sampled_from([0.0, 0.5, 0.9])),
        beta2=draw(st.sampled_from([0.9, 1.0])),
        # far above the rounding of the eigenvalues, which it is added to, also without full rank
        epsilon=1e-4,
        weight_decay=draw(st.sampled_from([0.0, 0.1])),
        l2=draw(st.booleans()),
        max_dim=draw(st.sampled_from([2, 3, 4, 6, 30])),
        frequency=frequency,
        start=frequency + draw(st.integers(0, 3)),
        bias_correction=draw(st.booleans()),
        grafting=draw(st.sampled_from([None, "sgd", "adagrad", "rmsprop", "adam"])),
        momentum=draw(st.sampled_from([0.0, 0.8])),
        dampening=draw(st.sampled_from([0.0, 0.3])),
        nesterov=draw(st.booleans()),
    )
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4))
    return some, shapes, draw(st.integers(0, 10**6))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_any_settings_equal_the_reference(
    case: tuple[Settings, list[tuple[int, ...]], int],
) -> None:
    some, shapes, seed = case
    random = np.random.default_rng(seed)
    arrays = [np.asarray(random.standard_normal(shape)) for shape in shapes]
    reference = Reference([array.copy() for array in arrays], some)
    parameters = [torch.nn.Parameter(torch.tensor(array)) for array in arrays]
    optimizer = optimizer_of(some, parameters)
    for _ in range(7):
        gradients = [
            None if random.random() < 0.2 else np.asarray(random.standard_normal(shape))
            for shape in shapes
        ]
        reference.step(gradients)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else torch.tensor(gradient)
        optimizer.step()
        for parameter, expected in zip(parameters, reference.parameters, strict=True):
            assert relative(parameter, expected) < 1e-9


def run(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, steps: int = 6) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()


def parameter(dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = (6, 5)) -> Any:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))


BEFORE = {"lr": 0.05, "start_preconditioning_step": 100, "max_preconditioner_dim": 4}
SAME = {
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        {"betas": (0.0, 1.0), "grafting": SGDGrafting(), "momentum": Momentum(0.9),
         "weight_decay": 0.1, "weight_decay_type": "l2"},
    ),
    "nesterov": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        {"betas": (0.0, 1.0), "grafting": SGDGrafting(),
         "momentum": Momentum(0.9, use_nesterov=True)},
    ),
    "adagrad": (
        lambda p: torch.optim.Adagrad(p, lr=0.05, eps=1e-6),
        {"betas": (0.0, 1.0), "grafting": AdaGradGrafting(1e-6)},
    ),
    "rmsprop": (
        lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.95, eps=1e-6, momentum=0.7),
        {"betas": (0.0, 1.0), "grafting": RMSpropGrafting(0.95, 1e-6), "momentum": Momentum(0.7)},
    ),
    "adam": (
        lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        {"betas": (0.8, 0.9), "grafting": AdamGrafting(0.95, 1e-6), "weight_decay": 0.1,
         "weight_decay_type": "l2"},
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
        {"betas": (0.8, 0.9), "grafting": AdamGrafting(0.95, 1e-6), "weight_decay": 0.1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_before_the_start_it_is_the_grafted_method(name: str) -> None:
    of_torch, options = SAME[name]
    ours, theirs = parameter(), parameter()
    run(DistributedShampoo([ours], **BEFORE, **options), ours)
    run(of_torch([theirs]), theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_groups_have_settings_of_their_own() -> None:
    alone, other = parameter(), parameter(shape=(7, 3))
    together = [parameter(), parameter(shape=(7, 3))]
    fast = {"lr": 0.1, "grafting": AdamGrafting(), "max_preconditioner_dim": 2, "betas": (0.5, 0.9)}
    grouped = DistributedShampoo(
        [{"params": [together[0]]}, {"params": [together[1]], **fast}], lr=0.01
    )
    separate = [DistributedShampoo([alone], lr=0.01), DistributedShampoo([other], **fast)]
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for one, two in zip((alone, other), together, strict=True):
            one.grad = torch.randn(one.shape, generator=generator, dtype=torch.float64)
            two.grad = one.grad.clone()
        grouped.step()
        for optimizer in separate:
            optimizer.step()
    torch.testing.assert_close(together, [alone, other], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_parameters_follow_the_wide_ones(dtype: torch.dtype) -> None:
    wide, narrow = parameter(torch.float64, (6, 40)), parameter(torch.float64, (6, 40))
    narrow.data = narrow.data.to(dtype)
    options: dict[str, Any] = {
        "lr": 0.01, "betas": (0.9, 0.99), "epsilon": 1e-3, "grafting": AdamGrafting(),
        "max_preconditioner_dim": 32,
    }  # fmt: skip
    first = DistributedShampoo([wide], **options, preconditioner_dtype=torch.float64)
    second = DistributedShampoo([narrow], **options)
    for step in range(4):
        gradient = torch.randn(6, 40, generator=torch.Generator().manual_seed(step))
        gradient = gradient.to(torch.bfloat16)  # exact in both
        wide.grad, narrow.grad = gradient.double(), gradient.to(dtype)
        first.step()
        second.step()
    precision = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert relative(narrow.double(), wide.detach().numpy()) < precision
    state = second.state[narrow]
    assert state["block_0.first_moment"].dtype == torch.float32


def test_weights_that_are_not_contiguous() -> None:
    ours, plain = parameter(shape=(4, 3, 2, 2)), parameter(shape=(4, 3, 2, 2))
    ours.data = ours.data.to(memory_format=torch.channels_last)
    options: dict[str, Any] = {"max_preconditioner_dim": 6, "grafting": SGDGrafting()}
    run(DistributedShampoo([ours], **options), ours)
    run(DistributedShampoo([plain], **options), plain)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours.contiguous(), plain, rtol=0, atol=0)


def test_a_step_within_autocast_is_not_rounded() -> None:
    one, two = parameter(torch.float32), parameter(torch.float32)
    run(DistributedShampoo([one], max_preconditioner_dim=6), one)
    with torch.autocast("cpu", torch.bfloat16):
        run(DistributedShampoo([two], max_preconditioner_dim=6), two)
    assert torch.equal(one, two)


def test_steps_are_counted_exactly_whatever_the_default_type() -> None:
    """A counter in bfloat16 would stay at 256."""
    one = parameter(shape=(2,))
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        optimizer = DistributedShampoo([one], start_preconditioning_step=1000)
    finally:
        torch.set_default_dtype(default)
    one.grad = torch.zeros_like(one)
    for _ in range(258):
        optimizer.step()
    assert int(optimizer.state[one]["step"]) == 258


def test_a_closure_is_called_with_gradients() -> None:
    weights = parameter()
    optimizer = DistributedShampoo([weights])

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (weights**2).sum()
        value.backward()
        return value

    before = loss().item()
    assert optimizer.step(loss).item() == before
    assert loss().item() < before


@pytest.mark.parametrize(
    ("method", "precision"),
    [(CoupledNewton(), 1e-5), (CoupledHigherOrder(4), 1e-5), (QRTracking(), 1e-2)],
)
def test_every_root_method_trains_alike(method: Any, precision: float) -> None:
    ours, exact = parameter(shape=(9, 8)), parameter(shape=(9, 8))
    options: dict[str, Any] = {
        "betas": (0.9, 0.95), "epsilon": 1e-2, "max_preconditioner_dim": 8,
        "grafting": AdamGrafting(), "preconditioner_dtype": torch.float64,
    }  # fmt: skip
    run(DistributedShampoo([exact], **options), exact, 20)
    optimizer = DistributedShampoo([ours], root_inverse=method, **options)
    run(optimizer, ours, 20)
    assert optimizer.kept_roots == 0
    assert 0 < relative(ours, exact.detach().numpy()) < precision


def test_roots_spread_over_steps() -> None:
    """Every block's roots are computed once in each four steps, and all before the start."""
    weights = parameter(shape=(8, 8))
    optimizer = DistributedShampoo(
        [weights],
        betas=(0.9, 0.9),
        max_preconditioner_dim=4,
        precondition_frequency=4,
        start_preconditioning_step=6,
        spread_root_inverse=True,
    )
    changed: list[set[int]] = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        roots = [optimizer.state[weights][f"block_{b}.inverse_root_0"] for b in range(4)]
        before = [root.clone() for root in roots]
        weights.grad = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        optimizer.step()
        changed.append({b for b in range(4) if not torch.equal(before[b], roots[b])})
    assert changed[:2] == [set(), set()]
    assert all(len(blocks) == 1 for blocks in changed[2:])
    assert set.union(*changed[2:6]) == {0, 1, 2, 3}
    assert changed[2:6] == changed[6:]
