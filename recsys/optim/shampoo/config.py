"""What Distributed Shampoo is configured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.optim.shampoo.checks import (
    COUNT,
    above_zero,
    at_least_zero,
    counts,
    decays,
    is_share,
    refuse_unless,
)

DECOUPLED = "decoupled"
L2 = "l2"
FACTOR_DTYPES = (torch.float32, torch.float64)
COMMUNICATION_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class SGDGrafting:
    """The step is as long as that of the gradient's running mean itself."""


@dataclass(frozen=True)
class AdaGradGrafting:
    """The step is as long as Adagrad's.

    Attributes:
        epsilon: added to the root of the sum of squares.
    """

    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        """Refuse an epsilon that divides by zero."""
        refuse_unless(
            above_zero(self.epsilon), "epsilon of AdaGradGrafting", self.epsilon, "above 0"
        )


@dataclass(frozen=True)
class RMSpropGrafting:
    """The step is as long as RMSprop's, whose running square is never corrected for its start.

    Attributes:
        beta2: decay of the running square.
        epsilon: added to its root.
    """

    beta2: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse a decay or epsilon that cannot work."""
        _refuse_second_moment(self)


@dataclass(frozen=True)
class AdamGrafting:
    """The step is as long as Adam's, whose running square is always corrected for its start.

    Attributes:
        beta2: decay of the running square.
        epsilon: added to its root.
    """

    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Refuse a decay or epsilon that cannot work."""
        _refuse_second_moment(self)


Grafting = SGDGrafting | AdaGradGrafting | RMSpropGrafting | AdamGrafting


def _refuse_second_moment(grafting: RMSpropGrafting | AdamGrafting) -> None:
    name = type(grafting).__name__
    refuse_unless(
        decays(grafting.beta2), f"beta2 of {name}", grafting.beta2, "above 0 and at most 1"
    )
    refuse_unless(above_zero(grafting.epsilon), f"epsilon of {name}", grafting.epsilon, "above 0")


@dataclass(frozen=True)
class Momentum:
    """The classical buffer on the search direction: M ← momentum · M + (1 − dampening) · P.

    Attributes:
        momentum: decay of the buffer.
        dampening: share of a new direction that does not enter it.
        use_nesterov: step along (1 − dampening) · P + momentum · M instead of M.
    """

    momentum: float = 0.9
    dampening: float = 0.0
    use_nesterov: bool = False

    def __post_init__(self) -> None:
        """Refuse shares outside of 0 to 1."""
        for name in ("momentum", "dampening"):
            value = getattr(self, name)
            refuse_unless(is_share(value), f"{name} of Momentum", value, "at least 0 and below 1")
        refuse_unless(
            isinstance(self.use_nesterov, bool),
            "use_nesterov of Momentum",
            self.use_nesterov,
            "True or False",
        )


@dataclass(frozen=True)
class Eigendecomposition:
    """Inverse roots from all eigenvalues and eigenvectors: exact, and the default."""


@dataclass(frozen=True)
class CoupledNewton:
    """Inverse roots by the coupled Newton iteration: matrix products alone.

    Its number of steps grows with the logarithm of the condition number, which ``epsilon`` bounds.

    Attributes:
        max_iterations: steps after which it counts as failed.
        tolerance: largest entry of root^p · matrix − identity at which it stops.
    """

    max_iterations: int = 100
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse an iteration that cannot end."""
        _refuse_iteration(self)


@dataclass(frozen=True)
class CoupledHigherOrder:
    """As :class:`CoupledNewton` with more terms of the series, so fewer and dearer steps.

    Attributes:
        order: of convergence; 2 is the Newton iteration.
        max_iterations: steps after which it counts as failed.
        tolerance: largest entry of root^p · matrix − identity at which it stops.
    """

    order: int = 3
    max_iterations: int = 100
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse an iteration that cannot converge or end."""
        refuse_unless(
            counts(self.order) and self.order >= 2,
            "order of CoupledHigherOrder",
            self.order,
            "a whole number of at least 2",
        )
        _refuse_iteration(self)


def _refuse_iteration(method: CoupledNewton | CoupledHigherOrder) -> None:
    name = type(method).__name__
    refuse_unless(
        counts(method.max_iterations), f"max_iterations of {name}", method.max_iterations, COUNT
    )
    refuse_unless(above_zero(method.tolerance), f"tolerance of {name}", method.tolerance, "above 0")


@dataclass(frozen=True)
class QRTracking:
    """Inverse roots in eigenvectors that are followed, not computed anew (SOAP, algorithm 4).

    The first roots come from an eigendecomposition. After it each is one power iteration with the
    new factor matrix, made orthonormal by a QR decomposition; the eigenvalues are the diagonal of
    the factor matrix in that basis. An approximation, good where factor matrices change slowly.

    Attributes:
        power_iterations: per refresh.
    """

    power_iterations: int = 1

    def __post_init__(self) -> None:
        """Refuse to follow without a step."""
        refuse_unless(
            counts(self.power_iterations),
            "power_iterations of QRTracking",
            self.power_iterations,
            COUNT,
        )


RootInverse = Eigendecomposition | CoupledNewton | CoupledHigherOrder | QRTracking


@dataclass(frozen=True)
class DDPDistribution:
    """Blocks, their state and their work are spread over data-parallel ranks.

    All ranks must hold the same weights and get the same gradients, as under
    ``DistributedDataParallel``.

    Attributes:
        communication_dtype: of the search directions that the ranks exchange: float32, bfloat16
            or float16. Float16 travels with an exponent per block, so small directions survive.
        ranks_per_group: ranks that share one copy of the state, for example those of a node; must
            divide the number of ranks. None for all ranks.
    """

    communication_dtype: torch.dtype = torch.float32
    ranks_per_group: int | None = None

    def __post_init__(self) -> None:
        """Refuse a type that cannot be sent and groups without ranks."""
        refuse_unless(
            self.communication_dtype in COMMUNICATION_DTYPES,
            "communication_dtype of DDPDistribution",
            self.communication_dtype,
            "torch.float32, torch.bfloat16 or torch.float16",
        )
        refuse_unless(
            self.ranks_per_group is None or counts(self.ranks_per_group),
            "ranks_per_group of DDPDistribution",
            self.ranks_per_group,
            f"None or {COUNT}",
        )


@dataclass(frozen=True)
class GroupSettings:
    """Settings of a parameter group; :class:`~recsys.optim.shampoo.DistributedShampoo` has them.

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
