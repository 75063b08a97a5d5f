"""What the tasks of a ranker share: one network, a mixture of experts, or layers of both.

Legend: R rows, K tasks, X experts, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

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
        self.layers: Any = nn.ModuleList(  # whose methods TorchScript finds without a cast
            SideBySide(count, before, after)
            for before, after in zip([inputs, *sizes[:-1]], sizes, strict=True)
        )
        self.norm = nn.LayerNorm(sizes[-1])
        self.shape = [count, sizes[0]]
        #: Columns of the first layer.
        self.columns = count * sizes[0]

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights [inputs, columns] and biases [columns] of the first layer of all experts."""
        layer = self.layers[0]
        return layer.weight.transpose(0, 1).flatten(1), layer.bias.flatten()

    def forward(self, first: Tensor) -> Tensor:
        """[R, columns], what the first layer gives, → [R, X, D]."""
        hidden = F.silu(first.unflatten(1, self.shape))
        for number, layer in enumerate(self.layers):  # TorchScript calls no slice of them
            if number > 0:
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
        """[R, X, inputs] → [R, X, outputs]."""
        products = torch.bmm(inputs.transpose(0, 1), self.weight)  # [X, R, outputs]
        return products.transpose(0, 1) + self.bias


class Gate(nn.Module):
    """A mixture of experts: weights from a row's inputs that add up to 1.

    Args:
        inputs: width of what decides.
        experts: X, how many there are to weigh.
    """

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.weights = nn.Linear(inputs, experts)

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights [inputs, X] and biases [X] of what decides."""
        return self.weights.weight.t(), self.weights.bias


def weighed(logits: Tensor, experts: Tensor) -> Tensor:
    """[R, X, G], what G gates say of each expert, and [R, X, D] → [R, G, D] the mixtures."""
    # along a dimension that is not the last a softmax of few numbers is four times as fast
    return torch.bmm(logits.softmax(dim=1).transpose(1, 2), experts)


def beside(layers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Weights and biases of layers that see the same, as those of one layer."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for weight, bias in layers:
        weights.append(weight)
        biases.append(bias)
    return torch.cat(weights, dim=1), torch.cat(biases)


class SharedExperts(nn.Module):
    """What turns the inputs of a row into a representation per task.

    All that sees the inputs is one layer, so that who knows a part of them earlier, as an exported
    ranker does of what is the user's, can compute that part of the layer earlier.
    """

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights [inputs, M] and biases [M] of all that sees the inputs."""
        raise NotImplementedError

    def after_first(self, first: Tensor) -> Tensor:
        """[R, M], what the first layer gives, → [R, K, D]."""
        raise NotImplementedError

    @torch.jit.unused
    def forward(self, inputs: Tensor) -> Tensor:
        """[R, inputs] → [R, K, D]."""
        weight, bias = self.first_layer()
        return self.after_first(torch.addmm(bias, inputs, weight))


class SharedBottom(SharedExperts):
    """One network for all tasks (Caruana, 1997); arguments as of :class:`MixtureOfExperts`."""

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.experts = Experts(1, inputs, config.sizes)

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """That of the network."""
        return self.experts.first_layer()

    def after_first(self, first: Tensor) -> Tensor:
        """[R, M], what the first layer gives, → [R, K, D]."""
        shared: Tensor = self.experts(first)
        return shared.expand(-1, self.num_tasks, -1)


class MixtureOfExperts(SharedExperts):
    """Every task weighs the same experts by a gate of its own (MMoE; Ma et al., KDD 2018).

    Args:
        config: sizes.
        inputs: width of a row.
        num_tasks: K.
    """

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        self.experts = Experts(config.experts, inputs, config.sizes)
        self.gates: Any = nn.ModuleList(Gate(inputs, config.experts) for _ in range(num_tasks))
        self.gates_shape = [config.experts, num_tasks]

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """Experts; then of each expert what the gates say of it."""
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for gate in self.gates:  # written out for TorchScript
            weight, bias = gate.first_layer()
            weights.append(weight)
            biases.append(bias)
        gates = torch.stack(weights, dim=2).flatten(1), torch.stack(biases, dim=1).flatten()
        return beside([self.experts.first_layer(), gates])

    def after_first(self, first: Tensor) -> Tensor:
        """[R, M], what the first layer gives, → [R, K, D]."""
        columns = self.experts.columns
        experts = self.experts(first[:, :columns])
        return weighed(first[:, columns:].unflatten(1, self.gates_shape), experts)


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
        self.task_experts: Any = nn.ModuleList(
            Experts(of_task, inputs, config.sizes) for _ in range(num_tasks)
        )
        self.shared_experts = Experts(config.experts, inputs, config.sizes)
        self.gates: Any = nn.ModuleList(
            Gate(inputs, of_task + config.experts) for _ in range(num_tasks)
        )
        everyone = of_task * num_tasks + config.experts
        self.shared_gate = None if is_last else Gate(inputs, everyone)
        of_shared = self.shared_experts.columns + (0 if is_last else everyone)
        own = of_task * config.sizes[0] + of_task + config.experts
        #: Columns of each of ``first_layers``.
        self.columns = [own] * num_tasks + [of_shared]

    def first_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Of each task, then of what is shared: all that sees its inputs, experts, then gate."""
        layers: list[tuple[Tensor, Tensor]] = []
        for experts, gate in zip(self.task_experts, self.gates):  # noqa: B905 (TorchScript)
            layers.append(beside([experts.first_layer(), gate.first_layer()]))
        of_shared = [self.shared_experts.first_layer()]
        if self.shared_gate is not None:
            of_shared.append(self.shared_gate.first_layer())
        layers.append(beside(of_shared))
        return layers

    def first(self, states: list[Tensor]) -> list[Tensor]:
        """What those layers give of K + 1 times [R, inputs]."""
        found: list[Tensor] = []
        for number, (weight, bias) in enumerate(self.first_layers()):
            found.append(torch.addmm(bias, states[number], weight))
        return found

    def after_first(self, first: list[Tensor]) -> list[Tensor]:
        """K + 1 times what those layers give → K + 1 times [R, D], the last one shared.

        Of a last layer of PLE there are K.
        """
        columns = self.shared_experts.columns
        of_all = self.shared_experts(first[-1][:, :columns])
        everyone: list[Tensor] = []
        mixed: list[Tensor] = []
        for number, experts in enumerate(self.task_experts):
            own = experts(first[number][:, : experts.columns])
            logits = first[number][:, experts.columns :].unsqueeze(2)
            mixed.append(weighed(logits, torch.cat([own, of_all], dim=1)).squeeze(1))
            everyone.append(own)
        if self.shared_gate is not None:
            everyone.append(of_all)
            logits = first[-1][:, columns:].unsqueeze(2)
            mixed.append(weighed(logits, torch.cat(everyone, dim=1)).squeeze(1))
        return mixed


class ProgressiveExtraction(SharedExperts):
    """PLE (Tang et al., RecSys 2020): what is shared and what is a task's own part layer by layer.

    Arguments as of :class:`MixtureOfExperts`.
    """

    def __init__(self, config: ExpertsConfig, inputs: int, num_tasks: int) -> None:
        super().__init__()
        widths = [inputs, *[config.sizes[-1]] * (config.levels - 1)]
        self.levels: Any = nn.ModuleList(
            _Extraction(config, width, num_tasks, number == config.levels - 1)
            for number, width in enumerate(widths)
        )

    def first_layer(self) -> tuple[Tensor, Tensor]:
        """That of the first layer of extraction."""
        return beside(self.levels[0].first_layers())

    def after_first(self, first: Tensor) -> Tensor:
        """[R, M], what the first layer gives, → [R, K, D]."""
        states: list[Tensor] = []
        for number, level in enumerate(self.levels):
            parts = first.split(level.columns, dim=1) if number == 0 else level.first(states)
            states = level.after_first(parts)
        return torch.stack(states, dim=1)


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
        hidden = F.silu(self.hidden(representations))  # [R, K, hidden]
        outputs: Tensor = (hidden * self.output.weight.squeeze(2)).sum(dim=2)
        return outputs + self.output.bias.squeeze(1)


def build_experts(config: ExpertsConfig, inputs: int, num_tasks: int) -> SharedExperts:
    """What turns [R, inputs] into [R, K, D] as ``config.kind`` says."""
    kinds: dict[str, Callable[[ExpertsConfig, int, int], SharedExperts]] = {
        "shared_bottom": SharedBottom,
        "mmoe": MixtureOfExperts,
        "ple": ProgressiveExtraction,
    }
    return kinds[config.kind](config, inputs, num_tasks)
