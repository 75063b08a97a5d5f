"""Optimisers: dense ones, Shampoo among them, and those fused into the tables' backward."""

from recsys.core.installation import require_supported_set

require_supported_set()

from recsys.optim.shampoo import (  # noqa: E402  (after the check of the installed set)
    AdaGradGrafting,
    AdamGrafting,
    CoupledHigherOrder,
    CoupledNewton,
    DDPDistribution,
    DistributedShampoo,
    Eigendecomposition,
    Momentum,
    QRTracking,
    RMSpropGrafting,
    SGDGrafting,
)

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
