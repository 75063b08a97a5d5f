"""The learning rate's curve over a run, whose number of steps Lightning's trainer knows."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from recsys.optim.dense import (
    DenseOptimConfig,
    ScheduleConfig,
    build_dense_optimizer,
    learning_rate_fraction,
)


def schedule_of(
    module: lightning.LightningModule, config: ScheduleConfig
) -> Callable[[int], float]:
    """The curve of a module's run: steps done → learning rate over its peak."""

    def fraction(step: int) -> float:
        # To count the steps Lightning builds the loader of the fit split. Asked while optimisers
        # are made, before a resumed run has its loader's state, the epoch would start anew; up
        # to the peak nobody needs the number.
        past_peak = step > config.warmup_steps
        total_steps = module.trainer.estimated_stepping_batches if past_peak else math.inf
        return learning_rate_fraction(step, total_steps, config)

    return fraction


def scheduled_optimizer(
    module: lightning.LightningModule, config: DenseOptimConfig
) -> OptimizerLRSchedulerConfig:
    """What ``configure_optimizers`` of a module returns: the optimiser and its curve by step."""
    optimizer = build_dense_optimizer(module, config.dense)
    curve = schedule_of(module, config.schedule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }
