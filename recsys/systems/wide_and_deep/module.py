"""The wide-and-deep model of ids, the baseline of NxtPost's table 1."""

from __future__ import annotations

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.distributed.gather import mean_over_ranks, relative_share, unite_pools
from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.sequence.base import user_of_step
from recsys.nn.softmax.exclusions import Owned
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.wide_and_deep.net import WideAndDeep, WideAndDeepConfig

#: The column of a batch whose items the loss is taken over.
POOL = "label_item"


class WideAndDeepRecommender(lightning.LightningModule):
    """Softmax of the next items over the distinct labels of a batch, as the two-tower loss.

    The wide part has a score per user and item, not a product of two vectors, so the logits of
    a batch are made in full; they are [L, P] with at most L items.

    Args:
        config: sizes.
        num_items: size of the fit vocabulary of items, the unknown id included.
        manifest: of the data set.
        optim: optimiser and schedule.
    """

    def __init__(
        self,
        config: WideAndDeepConfig,
        num_items: int,
        manifest: DatasetManifest,
        optim: DenseOptimConfig,
    ) -> None:
        super().__init__()
        self.optim = optim
        self.net = WideAndDeep(config, num_items, manifest)

    def forward(self, batch: SequenceBatch, items: Tensor) -> Tensor:
        """[B, P]: scores of some items [P] for the users of a batch."""
        scores: Tensor = self.net(
            batch.item, batch.lengths, batch.user_categorical, batch.user_dense, items
        )
        return scores

    def loss(self, batch: SequenceBatch) -> Tensor:
        """Mean cross-entropy of the labels; a user's own items are no negatives.

        The pool holds the labels of all ranks; the mean over the ranks is that over all labels.
        """
        pool = unite_pools(batch.pool_of(POOL))[0].items  # [P]
        target = torch.searchsorted(pool, batch.label_item)
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))  # [L]
        logits = self(batch, pool)[of_label]  # [L, P]
        own = self._own(batch, pool)[of_label]
        own[torch.arange(len(target), device=own.device), target] = False
        loss = F.cross_entropy(logits.masked_fill(own, float("-inf")), target)
        return loss * relative_share(loss.detach().new_full((), len(target))).to(loss.dtype)

    def _own(self, batch: SequenceBatch, pool: Tensor) -> Tensor:
        """[B, P] bool: the items of a user's history and labels."""
        users = len(batch.lengths)
        of_event = user_of_step(batch.lengths, len(batch.item))
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))
        owner = torch.cat([of_event, of_label])
        items = torch.cat([batch.item, batch.label_item])
        return Owned.from_pairs(owner, items, users).in_pool(pool).mask(len(pool))

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        """Loss of a batch."""
        loss = self.loss(batch)
        log_losses(self, {"loss": loss}, len(batch.user))
        return loss

    def validation_step(self, batch: SequenceBatch, _: int) -> None:
        """Note the loss of a batch of choose queries."""
        loss = mean_over_ranks(self.loss(batch))
        self.log("val/loss", loss, batch_size=len(batch.user), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with its schedule."""
        return scheduled_optimizer(self, self.optim)
