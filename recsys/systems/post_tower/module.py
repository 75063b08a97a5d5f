"""The post tower trained on item-to-item similarity (NxtPost §3.1.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from recsys.core.bounds import Finite, Positive, Settings
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.contract.schema import Feature
from recsys.data.loaders.item_pairs import ItemPairBatch
from recsys.distributed.gather import (
    UnitedPool,
    mean_over_ranks,
    pool_softmax_loss_over_ranks,
    unite_pools,
)
from recsys.distributed.processes import on_first_rank
from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.softmax.exclusions import Owned
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.post_tower.net import PostTower, PostTowerConfig

#: Embeddings of all items [V, W] → metrics by name.
Validate = Callable[[Tensor], dict[str, float]]

#: Items that are embedded at a time.
_ITEMS_PER_CHUNK = 8192


@dataclass(frozen=True)
class ItemSimilarityConfig(Settings):
    """The tower and its loss.

    Attributes:
        tower: its channels and sizes.
        scale: of the cosines in the softmax.
        log_q: how often the logarithm of an item's share of the fit engagements is taken from its
            logit, see ``NxtPostConfig``.
    """

    tower: PostTowerConfig = field(default_factory=PostTowerConfig)
    scale: Positive = 20.0
    log_q: Finite = 0.0


class ItemSimilarity(lightning.LightningModule):
    """One tower for both items of a pair; in-batch negatives, in both directions.

    Args:
        config: tower and loss.
        corpus: features of every item, a row per item index; not part of the checkpoint.
        categorical: categorical features of items, in column order.
        optim: optimiser and schedule.

    Attributes:
        log_share: [V] float32, logarithm of each item's share of the fit engagements; set where
            the loss is corrected by it.
        validate: measures the embeddings of all items after every validation, where set.
    """

    log_share: Tensor | None

    def __init__(
        self,
        config: ItemSimilarityConfig,
        corpus: ItemFeatures,
        categorical: tuple[Feature, ...],
        optim: DenseOptimConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = optim
        self.corpus = corpus
        self.tower = PostTower.of_items(config.tower, corpus, categorical)
        self.register_buffer("log_share", None, persistent=False)
        self.validate: Validate | None = None

    def forward(self, items: Tensor) -> Tensor:
        """Embeddings of item indices [P]: [P, W], L2-normalised, zeros where nothing is known."""
        embeddings: Tensor = self.tower(**self.corpus.select(items.cpu()).to(self.device).columns())
        return embeddings

    @torch.no_grad()
    def embed_all(self) -> Tensor:
        """Embeddings of every item index, [V, W]; index 0 has none."""
        every = torch.arange(len(self.corpus.text_lengths))
        parts = [self(chunk).cpu() for chunk in every.split(_ITEMS_PER_CHUNK)]
        embeddings = torch.cat(parts).float()
        embeddings[0] = 0
        return embeddings

    def loss(self, batch: ItemPairBatch) -> Tensor:
        """Mean cross-entropy of a pair's one item against the other among the batch's items.

        An item of the query itself is no negative; the pool holds each item once, and the items of
        all ranks.
        """
        batch = batch.with_items(self.corpus)
        embeddings = self.tower(**batch.features)
        earlier, later = unite_pools(batch.pools["earlier"], batch.pools["later"])
        items = batch.pools["both"]
        forward = self._one_way(items, embeddings, batch.earlier, batch.later, later)
        return (forward + self._one_way(items, embeddings, batch.later, batch.earlier, earlier)) / 2

    def _one_way(
        self, items: Tensor, embeddings: Tensor, query: Tensor, target: Tensor, pool: UnitedPool
    ) -> Tensor:
        """From the items ``query`` [B] to ``target`` [B], which the pool has.

        All of them, and the pool's own, are among ``items`` [P], ascending, which have the
        ``embeddings`` [P, W].
        """
        pairs = torch.arange(len(query) + 1, device=query.device)
        log_share = self.log_share
        loss: Tensor = pool_softmax_loss_over_ranks(
            embeddings[torch.searchsorted(items, query)],
            target,
            embeddings[torch.searchsorted(items, pool.own)],
            pool,
            scale=self.config.scale,
            owner=pairs[:-1],
            owned=Owned(pairs, query),  # of each pair, the query's own item
            log_q=None if log_share is None else self.config.log_q * log_share[pool.own],
        )
        return loss

    def training_step(self, batch: ItemPairBatch, _: int) -> Tensor:
        """Loss of a batch of pairs."""
        loss = self.loss(batch)
        log_losses(self, {"loss": loss}, len(batch.later))
        return loss

    def validation_step(self, batch: ItemPairBatch, _: int) -> None:
        """Note the loss of a batch of pairs."""
        loss = mean_over_ranks(self.loss(batch))
        self.log("val/loss", loss, batch_size=len(batch.later), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Rank the next item of the choose split by similarity to the last one."""
        if self.validate is not None:
            validate, embeddings = self.validate, self.embed_all()
            metrics = on_first_rank(lambda: validate(embeddings))
            self.log_dict({f"val/{name}": value for name, value in metrics.items()})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW."""
        return scheduled_optimizer(self, self.optim)
