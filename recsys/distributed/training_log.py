"""What a training logs at each step."""

from __future__ import annotations

from collections.abc import Mapping

import lightning
import torch
from torch import Tensor

from recsys.distributed.gather import mean_over_ranks


def log_losses(
    module: lightning.LightningModule, losses: Mapping[str, Tensor], batch_size: int
) -> None:
    """Log the ranks' mean of a batch's losses as ``train/<name>``, the first in the progress bar.

    One exchange for all of them: Lightning's ``sync_dist`` makes one for each, and has the ranks
    wait for each other before it.
    """
    means = mean_over_ranks(torch.stack([loss.detach() for loss in losses.values()]))
    first, *_ = losses
    for name, mean in zip(losses, means, strict=True):
        module.log(f"train/{name}", mean, prog_bar=name == first, batch_size=batch_size)
