"""Where the embedding tables of a model live, and who updates them.

A model names its tables' optimisers; the placement does the rest. So a model is the same in one
process, where ``OneProcess`` fuses the optimisers into the backward, and under a strategy that
shards the tables over many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from recsys.optim.fused import FusedOptimizerConfig, PlacedTables, fuse_tables


class TablePlacement(ABC):
    """Puts the tables of a module where they belong."""

    @abstractmethod
    def place(
        self, module: nn.Module, optimizers: Mapping[str, FusedOptimizerConfig]
    ) -> Mapping[str, PlacedTables]:
        """Replace the TorchRec collections of some children of ``module``, weights kept.

        Args:
            module: the model.
            optimizers: how the tables of a child are updated, by the child's name.

        Returns:
            The placed tables of each child.

        Raises:
            ConfigError: an optimiser that cannot be used, or tables that do not fit.
        """


class OneProcess(TablePlacement):
    """All tables in this process, updated in the backward.

    They are fused for the device on which tensors are made by default: Lightning calls
    ``configure_model`` with that of the training.
    """

    def place(
        self, module: nn.Module, optimizers: Mapping[str, FusedOptimizerConfig]
    ) -> Mapping[str, PlacedTables]:
        """Fuse the optimisers of all tables."""
        device = torch.get_default_device()
        return {
            child: fuse_tables(module.get_submodule(child), config, device)
            for child, config in optimizers.items()
        }


@runtime_checkable
class TakesPlacement(Protocol):
    """A model whose tables are placed in ``configure_model``."""

    placement: TablePlacement
    tables: Mapping[str, Any]
