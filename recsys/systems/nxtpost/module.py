"""NxtPost: a user tower trained to predict the next items by their content embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from recsys.core.bounds import Count, Finite, NotNegative, Positive, Settings
from recsys.core.errors import ConfigError
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.distributed.gather import UnitedPool, pool_softmax_loss_over_ranks, unite_pools
from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.sequence.base import user_of_step
from recsys.nn.softmax.exclusions import Owned
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.kinds.retrieval_module import RetrievalModule
from recsys.systems.nxtpost.net import EncodedHistory, SequenceTower, SequenceTowerConfig

#: Columns of a batch whose items are the pool of the long-term and of the short-term loss.
_LABELS, _EVENTS = "label_item", "item"


@dataclass(frozen=True)
class NxtPostConfig(Settings):
    """The tower and its losses.

    Attributes:
        tower: sizes of the user tower, and the rows of table 1 that concern it.
        scale: s of equation 6, between 15 and 20.
        long_term: weight of the loss of the user embedding against each of the next m items
            (§3.1.4); m is the loader's ``labels``, and 1 is the plain two-tower loss.
        short_term: weight of the loss of every step against the item after it (§3.1.3); 0 leaves
            it out.
        negatives: items drawn from the pool, the same for all queries (table 3); None for all.
        log_q: how often the logarithm of an item's share of the fit engagements is taken from its
            logit. 0 is the plain softmax over the distinct items of the pool. 1 is the logQ
            correction: popular items are not held down for being in many pools. −1 puts
            popularity beside the cosines, which then say what is left: about what the paper's
            pool does, which holds an item as often as it is engaged with.
    """

    tower: SequenceTowerConfig = field(default_factory=SequenceTowerConfig)
    scale: Positive = 20.0
    long_term: NotNegative = 1.0
    short_term: NotNegative = 1.0
    negatives: Count | None = None
    log_q: Finite = 0.0

    def __post_init__(self) -> None:
        """Refuse a loss of nothing."""
        super().__post_init__()
        if self.long_term + self.short_term == 0:
            raise ConfigError("model.long_term and model.short_term are 0; one must be above 0.")


class NxtPost(RetrievalModule):
    """User tower + short-term and long-term loss over in-batch pools (NxtPost §3).

    The post tower is fixed: items are rows of a matrix that is not part of the checkpoint.

    Args:
        config: tower and losses.
        manifest: surfaces and user features of the data set.
        items: [V, W] float32, L2-normalised, a row per item index.
        optim: optimiser and schedule.

    Attributes:
        log_share: [V] float32, logarithm of each item's share of the fit engagements; set where
            the losses take it into account.
    """

    items: Tensor
    log_share: Tensor | None

    def __init__(
        self,
        config: NxtPostConfig,
        manifest: DatasetManifest,
        items: Tensor,
        optim: DenseOptimConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = optim
        self.tower = SequenceTower(config.tower, items.shape[1], manifest)
        if not config.long_term:  # no loss is of what they make, the user embedding
            self.tower.summaries.requires_grad_(False)
        self.register_buffer("items", items, persistent=False)
        self.register_buffer("log_share", None, persistent=False)

    def encode(self, batch: SequenceBatch) -> EncodedHistory:
        """What the tower's encoders say about the histories."""
        return self.tower.encode(
            self.items[batch.item],
            batch.action_type,
            batch.surface,
            batch.timestamp,
            batch.lengths,
            batch.user_categorical,
            batch.user_dense,
            batch.host_lengths,
        )

    def forward(self, batch: SequenceBatch) -> Tensor:
        """[B, W]: the user embeddings, L2-normalised."""
        return self.tower.user_embedding(self.encode(batch), batch.request_time)

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """The losses that have a weight, by name."""
        encoded = self.encode(batch)
        of_event = user_of_step(batch.lengths, len(batch.item))  # [E]
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))  # [L]
        owner = torch.cat([of_event, of_label])
        own_items = torch.cat([batch.item, batch.label_item])
        owned = Owned.from_pairs(owner, own_items, len(batch.lengths))
        pools = dict(zip(self.pools, unite_pools(*map(batch.pool_of, self.pools)), strict=True))
        losses = {}
        if _LABELS in pools:
            users = self.tower.user_embedding(encoded, batch.request_time)  # [B, W]
            losses["long_term"] = self._pool_loss(
                users[of_label], batch.label_item, of_label, pools[_LABELS], owned
            )
        if _EVENTS in pools:
            steps = self.tower.step_embeddings(encoded)
            items, users = batch.item[steps.target], of_event[steps.target]
            losses["short_term"] = self._pool_loss(
                steps.embedding, items, users, pools[_EVENTS], owned
            )
        return losses

    @property
    def pools(self) -> list[str]:
        """The columns of a batch whose distinct items its losses are taken over."""
        weights = {_LABELS: self.config.long_term, _EVENTS: self.config.short_term}
        return [column for column, weight in weights.items() if weight]

    def _pool_loss(
        self,
        queries: Tensor,
        label_items: Tensor,
        owner: Tensor,
        pool: UnitedPool,
        owned: Owned,
    ) -> Tensor:
        """Equation 6 over the pool's items of all ranks, the owner's own left out.

        Args:
            queries: [Q, W], L2-normalised.
            label_items: [Q], each in the pool.
            owner: [Q], the user of each query.
            pool: of all ranks.
            owned: the items of each user.
        """
        log_share = self.log_share
        loss: Tensor = pool_softmax_loss_over_ranks(
            queries,
            label_items,
            self.items[pool.own],
            pool,
            scale=self.config.scale,
            owner=owner,
            owned=owned,
            log_q=None if log_share is None else self.config.log_q * log_share[pool.own],
            num_negatives=self.config.negatives,
        )
        return loss

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        weights = {"long_term": self.config.long_term, "short_term": self.config.short_term}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def training_step(self, batch: SequenceBatch, _: int) -> Tensor:
        """Weighted sum of the losses of a batch."""
        losses = self.losses(batch)
        loss = self._total(losses)
        log_losses(self, {"loss": loss, **losses}, len(batch.user))
        return loss

    def label_loss(self, users: Tensor, batch: SequenceBatch) -> Tensor:
        """The long-term loss alone; of a user's own items only the labels are left out."""
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))
        labels = batch.label_item
        (pool,) = unite_pools(batch.pool_of(_LABELS))
        owned = Owned.from_pairs(of_label, labels, len(users))
        return self._pool_loss(users[of_label], labels, of_label, pool, owned)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, which without weight decay is the paper's Adam."""
        return scheduled_optimizer(self, self.optim)
