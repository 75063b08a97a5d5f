"""Distributed Shampoo as a ``torch.optim.Optimizer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from recsys.core.errors import ConfigError, RecsysError
from recsys.optim.shampoo.checkpoint import STEP, load, merged, plain, without_typed
from recsys.optim.shampoo.checks import COUNT, counts, refuse_unless
from recsys.optim.shampoo.config import (
    DDPDistribution,
    Eigendecomposition,
    Grafting,
    Momentum,
    RootInverse,
)
from recsys.optim.shampoo.distribution import OneRank, RankGroup, SharingRanks
from recsys.optim.shampoo.group import ParameterGroup
from recsys.optim.shampoo.settings import DECOUPLED, refuse_unknown_keys, settings_of


class DistributedShampoo(torch.optim.Optimizer):
    """Shampoo: every dimension of a block of weights has a preconditioner of its own.

    Of a gradient G [m, n] it keeps L = Σ G·Gᵀ and R = Σ Gᵀ·G and steps along L^(−1/4)·G·R^(−1/4)
    (Shi et al., A Distributed Data-Parallel PyTorch Implementation of the Distributed Shampoo
    Optimizer for Training Neural Networks At-Scale, 2023). docs/shampoo.md says more.

    Steps are counted per parameter group, and only those in which a parameter of the group has a
    gradient; a parameter without one is left alone.

    Args:
        params: parameters, named parameters or parameter groups; a group may have its own value of
            every setting below but ``distributed`` and ``max_failures``.
        lr: learning rate.
        betas: decay of the running mean of gradients, and of the factor matrices; with 1 these are
            sums.
        epsilon: smallest eigenvalue of what roots are taken of.
        weight_decay: its strength.
        weight_decay_type: ``decoupled`` adds it to the search direction, ``l2`` to the gradient.
        max_preconditioner_dim: largest dimension of a block; small neighbouring dimensions are
            merged up to it.
        precondition_frequency: steps between two computations of the inverse roots.
        start_preconditioning_step: first step that is preconditioned, at least the frequency; -1
            for the frequency. Before it the grafted method trains.
        use_bias_correction: correct the running means for their start at zero.
        grafting: the method whose step length is taken; None for Shampoo's own.
        momentum: of the search direction.
        preconditioner_dtype: of factor matrices and of the computation of roots.
        distributed: how blocks are spread over ranks; None where every process does all.
        root_inverse: how inverse roots are computed.
        spread_root_inverse: compute at every step the roots of a share of the blocks instead of
            all at once, so that no step takes much longer than the others.
        max_failures: failures in a row at which a root that cannot be computed, or a gradient that
            is not finite, is an error.

    Raises:
        ConfigError: settings that cannot work, or sparse gradients (in :meth:`step`).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 1.0),
        epsilon: float = 1e-12,
        weight_decay: float = 0.0,
        weight_decay_type: str = DECOUPLED,
        max_preconditioner_dim: int = 1024,
        precondition_frequency: int = 1,
        start_preconditioning_step: int = -1,
        use_bias_correction: bool = True,
        grafting: Grafting | None = None,
        momentum: Momentum | None = None,
        preconditioner_dtype: torch.dtype = torch.float32,
        distributed: DDPDistribution | None = None,
        *,
        root_inverse: RootInverse | None = None,
        spread_root_inverse: bool = False,
        max_failures: int = 3,
    ) -> None:
        refuse_unless(counts(max_failures), "max_failures", max_failures, COUNT)
        refuse_unless(
            distributed is None or isinstance(distributed, DDPDistribution),
            "distributed",
            distributed,
            "None or DDPDistribution(communication_dtype, ranks_per_group)",
        )
        self._distributed = distributed
        self._max_failures = max_failures
        self._ranks: RankGroup | None = None
        self._loads: list[float] = []
        self._groups: list[ParameterGroup] = []
        self._consolidated: dict[Any, dict[str, Tensor]] | None = None
        defaults = {
            "lr": lr,
            "betas": betas,
            "epsilon": epsilon,
            "weight_decay": weight_decay,
            "weight_decay_type": weight_decay_type,
            "max_preconditioner_dim": max_preconditioner_dim,
            "precondition_frequency": precondition_frequency,
            "start_preconditioning_step": start_preconditioning_step,
            "use_bias_correction": use_bias_correction,
            "grafting": grafting,
            "momentum": momentum,
            "root_inverse": Eigendecomposition() if root_inverse is None else root_inverse,
            "spread_root_inverse": spread_root_inverse,
            "preconditioner_dtype": preconditioner_dtype,
        }
        super().__init__(params, defaults)

    @property
    def kept_roots(self) -> int:
        """How often the last good root was kept, because no new one could be computed."""
        return sum(group.guards.kept_roots for group in self._groups)

    @property
    def decomposed_roots(self) -> int:
        """How often an iteration did not converge and an eigendecomposition was taken instead."""
        return sum(group.guards.decomposed_roots for group in self._groups)

    @property
    def refused_gradients(self) -> int:
        """How often a parameter was left alone because its gradient was not finite."""
        return sum(group.guards.refused_gradients for group in self._groups)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; unnamed settings are those of the optimiser.

        Raises:
            ConfigError: settings that cannot work, or that Shampoo does not have.
        """
        refuse_unknown_keys(param_group)
        settings = settings_of({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        parameters: list[Tensor] = group["params"]
        number = len(self._groups)
        names = group.get("param_names") or [
            f"parameter {position} of group {number}, of shape {tuple(one.shape)}"
            for position, one in enumerate(parameters)
        ]
        _refuse_types(parameters, names)
        ranks = self._joined()
        work = ParameterGroup(
            parameters, names, settings, self._loads, ranks.rank, self._max_failures
        )
        self._groups.append(work)
        self._show(work, ranks)

    @property
    def _device(self) -> torch.device:
        """Of the first parameter."""
        parameters = (one for group in self.param_groups for one in group["params"])
        return next((one.device for one in parameters), torch.device("cpu"))

    def _joined(self) -> RankGroup:
        """The ranks that share the work; joined with the first group, whose device they take."""
        if self._ranks is None:
            if self._distributed is None:
                self._ranks = OneRank()
            else:
                self._ranks = SharingRanks(self._distributed, self._device)
            self._loads = [0.0] * self._ranks.size
        return self._ranks

    def _show(self, group: ParameterGroup, ranks: RankGroup) -> None:
        """Let ``state`` of every parameter show its part of the group's stacks."""
        for parameter in group.parameters:
            self.state[parameter] = {STEP: group.step}
        for stack in group.stacks:
            for row, block in enumerate(stack.blocks):
                shown = self.state[group.parameters[block.parameter]]
                for name, tensor in stack.state.items():
                    shown[f"block_{block.number}.{name}"] = ranks.of_this_rank(tensor[row])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, and the loss if a closure that computes it is given.

        Raises:
            ConfigError: a sparse gradient.
            TrainingError: numbers that went wrong too often, here or on another rank; the weights
                are those before the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        assert self._ranks is not None
        failure, directions = None, []
        try:
            directions = self._directions()
        except RecsysError as error:
            failure = error
        received = self._ranks.exchange(directions, self._shapes(), failure)
        of_ranks = [iter(one) for one in received]
        for group, work in zip(self.param_groups, self._groups, strict=True):
            own = [
                list(islice(tensors, len(stacks)))
                for tensors, stacks in zip(of_ranks, work.blocks, strict=True)
            ]
            work.apply(own, float(group["lr"]))
        return loss

    def _directions(self) -> list[Tensor]:
        """Of this rank's blocks in all groups; no state changes before all gradients are seen."""
        gradients = [work.gradients() for work in self._groups]
        # a step taken within autocast would have its matrix products rounded
        with torch.autocast(self._device.type, enabled=False):
            return [
                direction
                for group, work, some in zip(
                    self.param_groups, self._groups, gradients, strict=True
                )
                for direction in work.directions(some, settings_of(group))
            ]

    def _shapes(self) -> list[list[torch.Size]]:
        """Of the directions of all groups, by rank."""
        by_group = [work.direction_shapes for work in self._groups]
        return [
            [shape for shapes in of_rank for shape in shapes]
            for of_rank in zip(*by_group, strict=True)
        ]

    def consolidate_state_dict(self) -> None:
        """Gather the state of all ranks for one :meth:`state_dict` on the first of each group.

        A collective; Lightning calls it before it saves. What comes out is loaded by any number of
        ranks.
        """
        assert self._ranks is not None
        local = super().state_dict()["state"]
        parts = self._ranks.gathered({key: plain(one) for key, one in local.items()})
        self._consolidated = None if parts is None else merged(parts)

    def state_dict(self) -> dict[str, Any]:
        """This rank's state; after :meth:`consolidate_state_dict` once that of all ranks.

        Settings that are objects (grafting, momentum, root_inverse, preconditioner_dtype) are not
        in it: they are those of the optimiser that loads it.
        """
        state = super().state_dict()
        state["state"] = {key: dict(one) for key, one in state["state"].items()}
        if self._consolidated is not None:
            state["state"], self._consolidated = self._consolidated, None
        state["param_groups"] = [without_typed(group) for group in state["param_groups"]]
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back a state; of a consolidated one, the blocks of this rank.

        Raises:
            ArtifactError: the state is of other parameters or settings.
        """
        load(self.param_groups, self._groups, self.state, state_dict)
        for group in self._groups:
            group.loaded()


def _refuse_types(parameters: list[Tensor], names: list[str]) -> None:
    for parameter, name in zip(parameters, names, strict=True):
        if not parameter.is_floating_point():
            raise ConfigError(f"Shampoo: {name} is {parameter.dtype}, it must be a real type.")
