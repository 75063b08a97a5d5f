"""What Distributed Shampoo is configured by."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recsys.optim.shampoo.checks import COUNT, above_zero, counts, decays, is_share, refuse_unless

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
