"""Distributed Shampoo: a Kronecker-factored optimiser, spread over the data-parallel ranks."""

from recsys.optim.shampoo.config import (
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
from recsys.optim.shampoo.optimizer import DistributedShampoo

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
