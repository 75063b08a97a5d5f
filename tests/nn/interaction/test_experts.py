"""What tasks share, against the formulas written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recsys.nn.interaction.experts import (
    Experts,
    ExpertsConfig,
    Gate,
    SideBySide,
    TaskTowers,
    build_experts,
)

ROWS, INPUTS, TASKS = 5, 6, 3


@pytest.fixture
def inputs() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(ROWS, INPUTS)


def outputs_of(experts: Experts, inputs: torch.Tensor) -> torch.Tensor:
    weight, bias = experts.first_layer()
    return experts(inputs @ weight + bias)


def mixed_by(gate: Gate, inputs: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    share = F.softmax(gate.weights(inputs), dim=1)
    return sum(share[:, x : x + 1] * experts[:, x] for x in range(experts.shape[1]))


def test_layers_side_by_side_are_layers() -> None:
    layers = SideBySide(4, INPUTS, 2)
    torch.nn.init.normal_(layers.bias)
    several = torch.randn(ROWS, 4, INPUTS)
    expected = torch.stack(
        [several[:, x] @ layers.weight[x] + layers.bias[x] for x in range(4)], dim=1
    )
    torch.testing.assert_close(layers(several), expected)


def test_a_mixture_of_experts_by_its_formula(inputs) -> None:
    config = ExpertsConfig(kind="mmoe", sizes=[7, 4], experts=3)
    mixture = build_experts(config, INPUTS, TASKS)
    experts = outputs_of(mixture.experts, inputs)
    assert experts.shape == (ROWS, 3, 4)
    for task, gate in enumerate(mixture.gates):
        expected = mixed_by(gate, inputs, experts)
        torch.testing.assert_close(mixture(inputs)[:, task], expected)


def test_outputs_of_experts_are_normalised(inputs) -> None:
    experts = Experts(3, INPUTS, [7, 4])
    with torch.no_grad():
        experts.layers[-1].weight[1] *= 1000  # a loud one
    outputs = outputs_of(experts, inputs)
    torch.testing.assert_close(outputs.mean(dim=2), torch.zeros(ROWS, 3), atol=1e-5, rtol=0)
    assert (outputs.std(dim=2, correction=0) <= 1.0001).all()


def test_progressive_extraction_by_its_formula(inputs) -> None:
    config = ExpertsConfig(kind="ple", sizes=[4], experts=2, task_experts=1, levels=2)
    ple = build_experts(config, INPUTS, TASKS)
    first, last = ple.levels
    of_tasks = [outputs_of(experts, inputs) for experts in first.task_experts]
    shared = outputs_of(first.shared_experts, inputs)
    mixed = [
        mixed_by(gate, inputs, torch.cat([own, shared], dim=1))
        for gate, own in zip(first.gates, of_tasks, strict=True)
    ]
    everyone = mixed_by(first.shared_gate, inputs, torch.cat([*of_tasks, shared], dim=1))
    again = outputs_of(last.shared_experts, everyone)
    for task in range(TASKS):
        own = outputs_of(last.task_experts[task], mixed[task])
        expected = mixed_by(last.gates[task], mixed[task], torch.cat([own, again], dim=1))
        torch.testing.assert_close(ple(inputs)[:, task], expected)
    assert last.shared_gate is None  # nobody would read it


@pytest.mark.parametrize("kind", ["shared_bottom", "mmoe", "ple"])
def test_every_weight_is_trained(kind: str, inputs) -> None:
    shared = build_experts(ExpertsConfig(kind=kind, sizes=[8, 4]), INPUTS, TASKS)
    towers = TaskTowers(4, 5, TASKS)
    outputs = towers(shared(inputs))
    assert outputs.shape == (ROWS, TASKS)
    outputs.square().sum().backward()
    for module in (shared, towers):
        for name, weight in module.named_parameters():
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_experts_of_a_layer_start_as_linear_layers_do() -> None:
    weight, bias = Experts(3, 400, [70, 4]).first_layer()
    assert weight.shape == (400, 210) and bias.shape == (210,)
    assert 0.049 < weight.abs().max() <= 0.05


@pytest.mark.parametrize("kind", ["shared_bottom", "mmoe", "ple"])
def test_a_part_of_the_inputs_can_come_first(kind: str, inputs) -> None:
    shared = build_experts(ExpertsConfig(kind=kind, sizes=[8, 4]), INPUTS, TASKS)
    weight, bias = shared.first_layer()
    known = inputs[:1, :2] @ weight[:2] + bias  # the same of every row
    inputs[:, :2] = inputs[:1, :2]
    found = shared.after_first(known + inputs[:, 2:] @ weight[2:])
    torch.testing.assert_close(found, shared(inputs))
