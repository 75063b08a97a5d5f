"""Optimisers: dense ones, Shampoo among them, and those fused into the tables' backward."""

from recsys.core.installation import require_supported_set

require_supported_set()

from recsys.optim.shampoo.config import (  # noqa: E402  (after the check of the installed set)
    AdaGradGrafting,
    AdamGrafting,
    CoupledHigherOrder,
    CoupledNewton,
    DDPDistribution,
    Eigendecomposition,
    Momentum,
    QRTracking,
    RMSpropGrafting,
    SGDGrafting,
)
from recsys.optim.shampoo.optimizer import DistributedShampoo  # noqa: E402

__all__ = [
    "AdaGradGrafting",
    "AdamGrafting",
    "CoupledHigherOrder",
    "CoupledNewton",
    "DDPDistribution",
    "DistributedShampoo",
    "Eigendecomposition",
    "Momentum",
    "QRTracking",
    "RMSpropGrafting",
    "SGDGrafting",
]
