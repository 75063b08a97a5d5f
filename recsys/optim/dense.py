"""The optimiser of everything that is no embedding table, and the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchrec.distributed.types import ShardedModule
from torchrec.modules.embedding_modules import EmbeddingBagCollectionInterface

from recsys.core.bounds import CountOrZero, NotNegative, Settings, Share, ShareBelowOne
from recsys.core.errors import ConfigError
from recsys.optim.shampoo.run_config import ShampooConfig, build_shampoo


@dataclass(frozen=True)
class DenseOptimizerConfig(Settings):
    """AdamW, or Shampoo.

    Attributes:
        learning_rate: peak learning rate.
        weight_decay: of matrices; biases and norms are not decayed.
        betas: decay of the running mean, and of the running square (and of factor matrices).
        shampoo: further settings of Shampoo; None for AdamW.
    """

    learning_rate: NotNegative = 3e-3
    weight_decay: NotNegative = 1e-2
    betas: tuple[ShareBelowOne, Share] = (0.9, 0.999)
    shampoo: ShampooConfig | None = None

    def __post_init__(self) -> None:
        """Refuse values that their types do not mean, and what AdamW cannot average by."""
        super().__post_init__()
        if self.shampoo is None and self.betas[1] == 1:
            raise ConfigError("optim.dense.betas ends in 1; AdamW needs a number below 1.")


@dataclass(frozen=True)
class ScheduleConfig(Settings):
    """Linear warm-up, then cosine decay; dense weights and tables follow the same curve.

    Attributes:
        warmup_steps: steps until the peak learning rate.
        final_fraction: learning rate at the last step over the peak; 1 keeps it constant.
    """

    warmup_steps: CountOrZero = 50
    final_fraction: Share = 0.05


@dataclass(frozen=True)
class DenseOptimConfig(Settings):
    """Optimiser and schedule of a model that has no fused tables.

    Attributes:
        dense: of all weights.
        schedule: of their learning rate.
    """

    dense: DenseOptimizerConfig = field(default_factory=DenseOptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


def learning_rate_fraction(step: int, total_steps: float, config: ScheduleConfig) -> float:
    """Learning rate at ``step`` over the peak.

    Args:
        step: optimiser steps done.
        total_steps: steps of the whole run; infinity where it has no end, which means no decay.
        config: the curve.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if math.isinf(total_steps):
        return 1.0
    done = (step - config.warmup_steps) / max(1.0, total_steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return config.final_fraction + (1 - config.final_fraction) * cosine


def dense_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of ``module`` outside its embedding tables, which have their own optimiser."""
    parameters: list[nn.Parameter] = []
    if isinstance(module, (EmbeddingBagCollectionInterface, ShardedModule)):
        return parameters
    parameters.extend(module.parameters(recurse=False))
    for child in module.children():
        parameters.extend(dense_parameters(child))
    return list(dict.fromkeys(parameters))


def build_dense_optimizer(module: nn.Module, config: DenseOptimizerConfig) -> torch.optim.Optimizer:
    """AdamW or Shampoo over the dense parameters of ``module``.

    Raises:
        ConfigError: settings of Shampoo that cannot work.
    """
    parameters = dense_parameters(module)
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    if config.shampoo is None:
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = [
        {"params": [(names[id(p)], p) for p in some], "weight_decay": weight_decay}
        for some, weight_decay in ((matrices, config.weight_decay), (others, 0.0))
        if some
    ]
    return build_shampoo(groups, config.learning_rate, config.betas, config.shampoo)
