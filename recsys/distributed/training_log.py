"""What a training logs at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import lightning
import torch
from torch import Tensor

from recsys.distributed.gather import mean_over_ranks


class LossListener(lightning.Callback, ABC):
    """A callback that is told the losses of every batch before its backward."""

    @abstractmethod
    def on_losses(self, module: lightning.LightningModule, losses: Mapping[str, Tensor]) -> None:
        """Take the ranks' mean of each loss, scalars; every rank is told the same."""


def log_losses(
    module: lightning.LightningModule, losses: Mapping[str, Tensor], batch_size: int
) -> None:
    """Log the ranks' mean of a batch's losses as ``train/<name>``, the first in the progress bar.

    One exchange for all of them: Lightning's ``sync_dist`` makes one for each, and has the ranks
    wait for each other before it.
    """
    means = mean_over_ranks(torch.stack([loss.detach() for loss in losses.values()]))
    first, *_ = losses
    by_name = dict(zip(losses, means, strict=True))
    trainer = module._trainer  # without one, as in a loop of one's own, nothing is logged either
    for callback in trainer.callbacks if trainer is not None else ():  # type: ignore[attr-defined]
        if isinstance(callback, LossListener):
            callback.on_losses(module, by_name)
    for name, mean in by_name.items():
        module.log(f"train/{name}", mean, prog_bar=name == first, batch_size=batch_size)
