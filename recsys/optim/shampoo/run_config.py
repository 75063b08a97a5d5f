"""Shampoo as the dense optimiser of a run: what ``conf/optim/shampoo.yaml`` holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.distributed as dist

from recsys.core.bounds import (
    Count,
    Number,
    OneOf,
    Positive,
    Processes,
    Settings,
    ShareBelowOne,
    Width,
)
from recsys.optim.shampoo.config import (
    AdaGradGrafting,
    AdamGrafting,
    CoupledHigherOrder,
    CoupledNewton,
    DDPDistribution,
    Eigendecomposition,
    Grafting,
    Momentum,
    QRTracking,
    RMSpropGrafting,
    RootInverse,
    SGDGrafting,
)
from recsys.optim.shampoo.optimizer import DistributedShampoo

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_GRAFTINGS: Mapping[str, Callable[[float, float], Grafting | None]] = {
    "none": lambda beta2, epsilon: None,
    "sgd": lambda beta2, epsilon: SGDGrafting(),
    "adagrad": lambda beta2, epsilon: AdaGradGrafting(epsilon),
    "rmsprop": RMSpropGrafting,
    "adam": AdamGrafting,
}
_ROOT_INVERSES: Mapping[str, Callable[[], RootInverse]] = {
    "eigendecomposition": Eigendecomposition,
    "coupled_newton": CoupledNewton,
    "coupled_higher_order": CoupledHigherOrder,
    "qr_tracking": QRTracking,
}


@dataclass(frozen=True)
class ShampooConfig(Settings):
    """Settings of Shampoo beside learning rate, weight decay and betas.

    Attributes:
        epsilon: smallest eigenvalue of what roots are taken of.
        max_preconditioner_dim: largest dimension of a block.
        precondition_frequency: steps between two computations of the inverse roots.
        start_preconditioning_step: first step that is preconditioned; -1 for the frequency.
        use_bias_correction: correct the running means for their start at zero.
        grafting: the method whose step length is taken: ``sgd``, ``adagrad``, ``rmsprop``,
            ``adam`` or ``none``. Its running square decays by the second of ``betas``.
        grafting_epsilon: added to the root of that square.
        momentum: of the search direction; 0 for none.
        use_nesterov: look ahead by it.
        root_inverse: ``eigendecomposition``, ``coupled_newton``, ``coupled_higher_order`` or
            ``qr_tracking``.
        spread_root_inverse: compute the roots of a share of the blocks at every step.
        preconditioner_dtype: of factor matrices and roots, ``float32`` or ``float64``.
        communication_dtype: of the search directions that ranks exchange, ``float32``,
            ``bfloat16`` or ``float16``.
        ranks_per_group: ranks that share one copy of the state; None for all.
    """

    epsilon: Positive = 1e-12
    max_preconditioner_dim: Width = 1024
    precondition_frequency: Count = 50
    start_preconditioning_step: Annotated[int, Number(at_least=1, at_most=10**9, besides=-1)] = -1
    use_bias_correction: bool = True
    grafting: Annotated[str, OneOf(tuple(_GRAFTINGS))] = "adam"
    grafting_epsilon: Positive = 1e-8
    momentum: ShareBelowOne = 0.0
    use_nesterov: bool = False
    root_inverse: Annotated[str, OneOf(tuple(_ROOT_INVERSES))] = "eigendecomposition"
    spread_root_inverse: bool = False
    preconditioner_dtype: Annotated[str, OneOf(("float32", "float64"))] = "float32"
    communication_dtype: Annotated[str, OneOf(("float32", "bfloat16", "float16"))] = "float32"
    ranks_per_group: Processes | None = None


def build_shampoo(
    groups: list[dict[str, Any]],
    learning_rate: float,
    betas: tuple[float, float],
    config: ShampooConfig,
) -> DistributedShampoo:
    """Shampoo over parameter groups; spread over the ranks where the run has several.

    Raises:
        ConfigError: settings that cannot work.
    """
    return DistributedShampoo(
        groups,
        lr=learning_rate,
        betas=betas,
        epsilon=config.epsilon,
        max_preconditioner_dim=config.max_preconditioner_dim,
        precondition_frequency=config.precondition_frequency,
        start_preconditioning_step=config.start_preconditioning_step,
        use_bias_correction=config.use_bias_correction,
        grafting=_GRAFTINGS[config.grafting](betas[1], config.grafting_epsilon),
        momentum=Momentum(config.momentum, use_nesterov=config.use_nesterov),
        root_inverse=_ROOT_INVERSES[config.root_inverse](),
        spread_root_inverse=config.spread_root_inverse,
        preconditioner_dtype=_DTYPES[config.preconditioner_dtype],
        distributed=_distribution(config),
    )


def _distribution(config: ShampooConfig) -> DDPDistribution | None:
    # made in any case: what several ranks would refuse, one does too
    distribution = DDPDistribution(_DTYPES[config.communication_dtype], config.ranks_per_group)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return distribution
