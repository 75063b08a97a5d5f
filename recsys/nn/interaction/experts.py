"""What the tasks of a ranker share: one network, a mixture of experts, or layers of both.

Legend: R rows, K tasks, X experts, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.core.bounds import Number, OneOf, Settings, Width

_Few = Annotated[int, Number(at_least=1, at_most=64)]


@dataclass(frozen=True)
class ExpertsConfig(Settings):
    """How tasks share what is computed of a row.

    Attributes:
        kind: ``shared_bottom``: one network for all; ``mmoe``: every task its own mixture of the
            same experts; ``ple``: shared experts and experts of each task, layer by layer.
        sizes: layers of an expert, and of the shared network.
        experts: X shared experts.
        task_experts: experts of each task (``ple``).
        levels: layers of extraction (``ple``).
        task_hidden_size: hidden layer of each task's own tower.
    """

    kind: Annotated[str, OneOf(("shared_bottom", "mmoe", "ple"))] = "mmoe"
    sizes: list[Width] = field(default_factory=lambda: [128, 64])
    experts: _Few = 4
    task_experts: _Few = 1
    levels: _Few = 2
    task_hidden_size: Width = 32


class Experts(nn.Module):
    """Networks of the same shape side by side, their outputs normalised.

    Without the norm experts drift apart in scale, and a gate prefers the loud ones.

    Args:
        count: X.
        inputs: width of what each of them sees.
        sizes: its layers.
    """

    def __init__(self, count: int, inputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SideBySide(count, before, after)
            for before, after in zip([inputs, *sizes[:-1]], sizes, strict=True)
        )
        self.norm = nn.LayerNorm(sizes[-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs], the same for all, or [R, X, inputs] → [R, X, D]."""
        hidden = inputs
        for layer in self.layers:
            hidden = F.silu(layer(hidden))
        normalised: Tensor = self.norm(hidden)
        return normalised


class SideBySide(nn.Module):
    """X linear layers computed as one product.

    Args:
        count: X.
        inputs: width of what each of them sees.
        outputs: width of what each of them gives.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs], the same for all, or [R, X, inputs] → [R, X, outputs]."""
        if inputs.dim() == 2:
            count, width, outputs = self.weight.shape
            together = self.weight.transpose(0, 1).reshape(width, count * outputs)
            return (inputs @ together).unflatten(1, (count, outputs)) + self.bias
        products = torch.bmm(inputs.transpose(0, 1), self.weight)  # [X, R, outputs]
        return products.transpose(0, 1) + self.bias


class Gate(nn.Module):
    """A mixture of experts: weights from a row's inputs that add up to 1.

    Args:
        inputs: width of what decides.
        experts: how many there are to weigh.
    """

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.weights = nn.Linear(inputs, experts)

    def forward(self, inputs: Tensor, experts: Tensor) -> Tensor:
        """[R, inputs] and [R, X, D] → [R, D]."""
        share = self.weights(inputs).softmax(dim=1)  # [R, X]
        return torch.bmm(share.unsqueeze(1), experts).squeeze(1)


class SharedBottom(nn.Module):
    """One network for all tasks (Caruana, 1997); arguments as of :class:`MixtureOfExperts`."""

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.experts = Experts(1, inputs, config.sizes)

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs] → [R, K, D]."""
        shared: Tensor = self.experts(inputs)
        return shared.expand(-1, self.num_tasks, -1)


class MixtureOfExperts(nn.Module):
    """Every task weighs the same experts by a gate of its own (MMoE; Ma et al., KDD 2018).

    Args:
        config: sizes.
        inputs: width of a row.
        num_tasks: K.
    """

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        self.experts = Experts(config.experts, inputs, config.sizes)
        self.gates = nn.ModuleList(Gate(inputs, config.experts) for _ in range(num_tasks))

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs] → [R, K, D]."""
        experts = self.experts(inputs)
        mixed: list[Tensor] = []
        for gate in self.gates:  # written out, as below, for TorchScript
            mixed.append(gate(inputs, experts))
        return torch.stack(mixed, dim=1)


class _Extraction(nn.Module):
    """A layer of PLE: experts of each task and shared ones, weighed for each task and for all.

    Args:
        config: sizes.
        inputs: width of what each task, and what is shared, hands in.
        num_tasks: K.
        is_last: nobody needs what is shared.
    """

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int, is_last: bool) -> None:
        super().__init__()
        of_task = config.task_experts
        self.task_experts = nn.ModuleList(
            Experts(of_task, inputs, config.sizes) for _ in range(num_tasks)
        )
        self.shared_experts = Experts(config.experts, inputs, config.sizes)
        self.gates = nn.ModuleList(Gate(inputs, of_task + config.experts) for _ in range(num_tasks))
        everyone = of_task * num_tasks + config.experts
        self.shared_gate = None if is_last else Gate(inputs, everyone)

    def forward(self, tasks: list[Tensor], shared: Tensor) -> tuple[list[Tensor], Tensor]:
        """K times [R, inputs] and [R, inputs] → K times [R, D] and [R, D]."""
        everyone: list[Tensor] = []
        for number, experts in enumerate(self.task_experts):
            everyone.append(experts(tasks[number]))
        of_all = self.shared_experts(shared)
        mixed: list[Tensor] = []
        for number, gate in enumerate(self.gates):
            mixed.append(gate(tasks[number], torch.cat([everyone[number], of_all], dim=1)))
        if self.shared_gate is not None:
            everyone.append(of_all)
            shared = self.shared_gate(shared, torch.cat(everyone, dim=1))
        return mixed, shared


class ProgressiveExtraction(nn.Module):
    """PLE (Tang et al., RecSys 2020): what is shared and what is a task's own part layer by layer.

    Arguments as of :class:`MixtureOfExperts`.
    """

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        widths = [inputs, *[config.sizes[-1]] * (config.levels - 1)]
        self.levels = nn.ModuleList(
            _Extraction(config, width, num_tasks, number == config.levels - 1)
            for number, width in enumerate(widths)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs] → [R, K, D]."""
        tasks, shared = [inputs] * self.num_tasks, inputs
        for level in self.levels:
            tasks, shared = level(tasks, shared)
        return torch.stack(tasks, dim=1)


class TaskTowers(nn.Module):
    """A small network per task on the task's own representation, all computed together.

    Args:
        inputs: D.
        hidden: units of the hidden layer.
        num_tasks: K.
    """

    def __init__(self, inputs: int, hidden: int, num_tasks: int) -> None:
        super().__init__()
        self.hidden = SideBySide(num_tasks, inputs, hidden)
        self.output = SideBySide(num_tasks, hidden, 1)

    def forward(self, representations: Tensor) -> Tensor:
        """[R, K, D] → [R, K]."""
        outputs: Tensor = self.output(F.silu(self.hidden(representations))).squeeze(2)
        return outputs


def build_experts(config: ExpertsConfig, inputs: int, num_tasks: int) -> nn.Module:
    """What turns [R, inputs] into [R, K, D] as ``config.kind`` says."""
    kinds = {
        "shared_bottom": SharedBottom,
        "mmoe": MixtureOfExperts,
        "ple": ProgressiveExtraction,
    }
    return kinds[config.kind](config, inputs, num_tasks)
