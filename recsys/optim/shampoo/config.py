"""What Distributed Shampoo is configured by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from recsys.errors import ConfigError

DECOUPLED = "decoupled"
L2 = "l2"
FACTOR_DTYPES = (torch.float32, torch.float64)
COMMUNICATION_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _refuse_unless(fits: bool, setting: str, value: object, expected: str) -> None:
    if not fits:
        raise ConfigError(f"Shampoo: {setting} is {value}, it must be {expected}.")


#: What a number that counts something must be.
_COUNT = "a whole number of at least 1"


def _counts(value: object) -> bool:
    return isinstance(value, int) and value >= 1


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
        _refuse_unless(self.epsilon > 0, "epsilon of AdaGradGrafting", self.epsilon, "above 0")


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
    _refuse_unless(
        0 < grafting.beta2 <= 1, f"beta2 of {name}", grafting.beta2, "above 0 and at most 1"
    )
    _refuse_unless(grafting.epsilon > 0, f"epsilon of {name}", grafting.epsilon, "above 0")


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
            _refuse_unless(0 <= value < 1, f"{name} of Momentum", value, "at least 0 and below 1")


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
        _refuse_unless(self.order >= 2, "order of CoupledHigherOrder", self.order, "at least 2")
        _refuse_iteration(self)


def _refuse_iteration(method: CoupledNewton | CoupledHigherOrder) -> None:
    name = type(method).__name__
    _refuse_unless(
        method.max_iterations >= 1, f"max_iterations of {name}", method.max_iterations, "at least 1"
    )
    _refuse_unless(method.tolerance > 0, f"tolerance of {name}", method.tolerance, "above 0")


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
        _refuse_unless(
            _counts(self.power_iterations),
            "power_iterations of QRTracking",
            self.power_iterations,
            _COUNT,
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
        _refuse_unless(
            self.communication_dtype in COMMUNICATION_DTYPES,
            "communication_dtype of DDPDistribution",
            self.communication_dtype,
            "torch.float32, torch.bfloat16 or torch.float16",
        )
        _refuse_unless(
            self.ranks_per_group is None or self.ranks_per_group >= 1,
            "ranks_per_group of DDPDistribution",
            self.ranks_per_group,
            "at least 1",
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
        _refuse_unless(len(self.betas) == 2, "betas", self.betas, "a pair (β1, β2)")
        beta1, beta2 = self.betas
        for fits, setting, expected in (
            (0 <= self.lr < math.inf, "lr", "finite and at least 0"),
            (0 <= beta1 < 1 and 0 < beta2 <= 1, "betas", "(β1, β2) with 0 ≤ β1 < 1, 0 < β2 ≤ 1"),
            (0 < self.epsilon < math.inf, "epsilon", "finite and above 0"),
            (0 <= self.weight_decay < math.inf, "weight_decay", "finite and at least 0"),
            (
                self.weight_decay_type in (DECOUPLED, L2),
                "weight_decay_type",
                f"{DECOUPLED} or {L2}",
            ),
            (_counts(self.max_preconditioner_dim), "max_preconditioner_dim", _COUNT),
            (_counts(self.precondition_frequency), "precondition_frequency", _COUNT),
            (
                _counts(self.start) and self.start >= self.precondition_frequency,
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
            _refuse_unless(fits, setting, getattr(self, setting), expected)

    @property
    def start(self) -> int:
        """First step that is preconditioned."""
        if self.start_preconditioning_step == -1:
            return self.precondition_frequency
        return self.start_preconditioning_step


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
