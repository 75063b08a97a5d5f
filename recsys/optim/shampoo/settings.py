"""The settings of a parameter group of Shampoo, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from recsys.core.errors import ConfigError
from recsys.optim.shampoo.checks import (
    COUNT,
    above_zero,
    at_least_zero,
    counts,
    decays,
    is_share,
    refuse_unless,
)
from recsys.optim.shampoo.config import Eigendecomposition, Grafting, Momentum, RootInverse

DECOUPLED = "decoupled"
L2 = "l2"
FACTOR_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class GroupSettings:
    """Settings of a parameter group; :class:`~recsys.optim.DistributedShampoo` has them.

    Raises:
        ConfigError: values that cannot work.
    """

    lr: float = 1e-2
    betas: tuple[float, float] = (0.9, 1.0)
    epsilon: float = 1e-12
    weight_decay: float = 0.0
    weight_decay_type: str = DECOUPLED
    max_preconditioner_dim: int = 1024
    precondition_frequency: int = 1
    start_preconditioning_step: int = -1
    use_bias_correction: bool = True
    grafting: Grafting | None = None
    momentum: Momentum | None = None
    root_inverse: RootInverse = field(default_factory=Eigendecomposition)
    spread_root_inverse: bool = False
    preconditioner_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        for fits, setting, expected in (
            (_is_rate(self.lr), "lr", "finite and at least 0"),
            (_are_betas(self.betas), "betas", "a pair (β1, β2) with 0 ≤ β1 < 1, 0 < β2 ≤ 1"),
            (above_zero(self.epsilon), "epsilon", "finite and above 0"),
            (at_least_zero(self.weight_decay), "weight_decay", "finite and at least 0"),
            (
                self.weight_decay_type in (DECOUPLED, L2),
                "weight_decay_type",
                f"{DECOUPLED} or {L2}",
            ),
            (counts(self.max_preconditioner_dim), "max_preconditioner_dim", COUNT),
            (counts(self.precondition_frequency), "precondition_frequency", COUNT),
            (isinstance(self.use_bias_correction, bool), "use_bias_correction", "True or False"),
            (isinstance(self.spread_root_inverse, bool), "spread_root_inverse", "True or False"),
            (
                counts(self.start) and self.start >= self.precondition_frequency,
                "start_preconditioning_step",
                "-1 or a whole number of at least the precondition_frequency, "
                f"{self.precondition_frequency}",
            ),
            (
                self.grafting is None or isinstance(self.grafting, Grafting),
                "grafting",
                "None, SGDGrafting, AdaGradGrafting, RMSpropGrafting or AdamGrafting",
            ),
            (
                self.momentum is None or isinstance(self.momentum, Momentum),
                "momentum",
                "None or Momentum(momentum, dampening, use_nesterov)",
            ),
            (
                isinstance(self.root_inverse, RootInverse),
                "root_inverse",
                "Eigendecomposition, CoupledNewton, CoupledHigherOrder or QRTracking",
            ),
            (
                self.preconditioner_dtype in FACTOR_DTYPES,
                "preconditioner_dtype",
                "torch.float32 or torch.float64; roots of narrower factor matrices are noise",
            ),
        ):
            refuse_unless(fits, setting, getattr(self, setting), expected)

    @property
    def start(self) -> int:
        """First step that is preconditioned."""
        if self.start_preconditioning_step == -1:
            return self.precondition_frequency
        return self.start_preconditioning_step


def _is_rate(value: Any) -> bool:
    """Whether it is finite and at least 0; a tensor of one number is one, as torch takes it."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return at_least_zero(value)


def _are_betas(value: object) -> bool:
    if not isinstance(value, Sequence) or len(value) != 2:
        return False
    return is_share(value[0]) and decays(value[1])


#: Settings that are configuration and no state: a checkpoint leaves them to the constructor.
TYPED = ("grafting", "momentum", "root_inverse", "preconditioner_dtype")
_NAMES = tuple(one.name for one in fields(GroupSettings))
#: Keys of a parameter group that are not Shampoo's: of torch, its schedulers and Lightning.
_FOREIGN = {"params", "param_names", "initial_lr", "name"}


def settings_of(group: Mapping[str, Any]) -> GroupSettings:
    """The settings of a parameter group.

    Raises:
        ConfigError: values that cannot work.
    """
    return GroupSettings(**{name: group[name] for name in _NAMES})


def refuse_unknown_keys(group: Mapping[str, Any]) -> None:
    """Refuse settings of a parameter group that Shampoo does not have.

    Raises:
        ConfigError: an unknown key.
    """
    unknown = sorted(set(group) - set(_NAMES) - _FOREIGN)
    if unknown:
        raise ConfigError(
            f"Shampoo: a parameter group has the setting {unknown[0]!r}, which is unknown; the "
            f"settings are {', '.join(_NAMES)}."
        )
