"""The two-tower model as Lightning trains it.

Legend: B users, L labels, P items of a pool, V items of the data set, W width, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from omegaconf import MISSING
from torch import Tensor, nn

from recsys.core.bounds import Finite, OneOf, Positive, Settings, Share
from recsys.core.errors import ConfigError
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.batches.sequences.batch import SequenceBatch
from recsys.data.batches.sequences.towers import CANDIDATES, ITEMS, TowerBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.distributed.gather import (
    UnitedPool,
    mean_over_ranks,
    pool_softmax_loss_over_ranks,
    unite_pools,
)
from recsys.distributed.schedules import scheduled_optimizer
from recsys.distributed.training_log import log_losses
from recsys.nn.interaction.adopted import AdoptionConfig
from recsys.nn.interaction.mixture_of_logits import MixtureOfLogits, MixtureOfLogitsConfig
from recsys.nn.sequence.base import user_of_step
from recsys.nn.softmax.exclusions import Owned
from recsys.optim.dense import DenseOptimConfig
from recsys.systems.kinds.retrieval_module import RetrievalModule
from recsys.systems.nxtpost.net import SequenceTowerConfig
from recsys.systems.post_tower.net import PostTower, PostTowerConfig
from recsys.systems.two_tower.net import UserTower

#: Items that are embedded at a time.
_ITEMS_PER_CHUNK = 8192

DOT, MIXTURE = SIMILARITIES = ("dot", "mixture")
#: What the towers are trained to tell: what users engage with, or what later stages select.
ENGAGE, SELECT = OBJECTIVES = ("engage", "select")


@dataclass(frozen=True)
class TaskConfig(Settings):
    """A task: the engagements of an action.

    Attributes:
        action: what a user does.
        weight: of the task's loss.
    """

    action: str = MISSING
    weight: Positive = 1.0


@dataclass(frozen=True)
class TwoTowerConfig(Settings):
    """Both towers, what compares them, and the loss.

    Attributes:
        items: channels and sizes of the item tower; ``output_width`` is W.
        users: what reads a user's recent history and features.
        adoption: how a published embedding comes in, where the loader reads any.
        similarity: ``dot``: the cosine; ``mixture``: mixture of logits.
        mixture: its sizes.
        scale: of the cosines in the softmax of ``dot``; ``mixture`` has its temperature.
        objective: ``engage``: a softmax over the items of a batch for the engagements of users;
            ``select``: cross-entropy of whether later stages of a funnel selected a candidate.
        rank_weight: of ``select``, the share of the loss that is against how a candidate's value
            ranks among those of its request, not against whether it was selected.
        log_q: how often the logarithm of an item's share of what pools are drawn from is taken
            from its logit; 1 is the logQ correction.
        tasks: an engagement is one of all tasks whose action the user took on the item. Empty for
            one task: every engagement.
    """

    items: PostTowerConfig = field(default_factory=lambda: PostTowerConfig(post_id=True))
    users: SequenceTowerConfig = field(default_factory=SequenceTowerConfig)
    adoption: AdoptionConfig = field(default_factory=lambda: AdoptionConfig(kind="gated"))
    similarity: Annotated[str, OneOf(SIMILARITIES)] = DOT
    mixture: MixtureOfLogitsConfig = field(default_factory=MixtureOfLogitsConfig)
    scale: Positive = 20.0
    objective: Annotated[str, OneOf(OBJECTIVES)] = ENGAGE
    rank_weight: Share = 0.0
    log_q: Finite = 1.0
    tasks: list[TaskConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a task that is named twice, and tasks where there are none."""
        super().__post_init__()
        names = [task.action for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"model.tasks names {', '.join(twice)} more than once.")
        if names and self.objective == SELECT:
            raise ConfigError(
                "model.tasks are actions of users, which model.objective=select does not learn "
                "from; leave them out."
            )


class TwoTower(RetrievalModule):
    """User tower and item tower, trained by a softmax over the items of a batch for every task.

    The pool of all tasks holds the labels of the batch and its hard negatives; a user's own items
    are no negatives. With ``objective=select`` they are trained by what became of candidates.

    Args:
        config: towers and loss.
        manifest: features of users and items.
        corpus: features of every item, a row per item index; not part of the checkpoint.
        embedding_shape: vectors and width of published user embeddings; None reads none.
        optim: optimiser and schedule.

    Attributes:
        log_share: [V] float32, logarithm of each item's share of what pools are drawn from; set
            where the loss is corrected by it.
        bias: of the logit that a candidate is selected; None with another objective.
    """

    log_share: Tensor | None
    task_weights: Tensor

    def __init__(
        self,
        config: TwoTowerConfig,
        manifest: DatasetManifest,
        corpus: ItemFeatures,
        embedding_shape: tuple[int, int] | None,
        optim: DenseOptimConfig,
    ) -> None:
        super().__init__()
        self.config = config
        self.optim = optim
        self.corpus = corpus
        categorical = manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        self.items = PostTower.of_items(config.items, corpus, categorical)
        width = config.items.output_width
        self.users = UserTower(config.users, config.adoption, width, manifest, embedding_shape)
        self.mixture = None
        if config.similarity == MIXTURE:
            self.mixture = MixtureOfLogits(width, width, config.mixture)
        weights = [task.weight for task in config.tasks] or [1.0]
        self.register_buffer("task_weights", torch.tensor(weights), persistent=False)
        self.register_buffer("log_share", None, persistent=False)
        self.bias = nn.Parameter(torch.zeros(())) if config.objective == SELECT else None

    def forward(self, batch: TowerBatch) -> Tensor:
        """[B, W]: the user embeddings, L2-normalised."""
        batch = batch.with_items(self.corpus)
        return self._users(batch, self._items(batch))

    def losses(self, batch: TowerBatch) -> Tensor:
        """Sum over the tasks of weight times mean loss of the task's labels; or as ``select``."""
        batch = batch.with_items(self.corpus)
        items = self._items(batch)
        return self._loss(self._users(batch, items), batch, items)

    def _items(self, batch: TowerBatch) -> Tensor:
        """[P, W] embeddings of all items of a batch."""
        embeddings: Tensor = self.items(**batch.features)
        return embeddings

    def _users(self, batch: TowerBatch, items: Tensor) -> Tensor:
        place = torch.searchsorted(batch.pools[ITEMS], batch.item)
        users: Tensor = self.users(
            items.index_select(0, place),
            batch.action_type,
            batch.surface,
            batch.timestamp,
            batch.lengths,
            batch.request_time,
            batch.user_categorical,
            batch.user_dense,
            batch.user_embedding,
            batch.has_embedding,
            batch.host_lengths,
        )
        return users

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """[n] float32, that candidates [n, W] are selected at requests of users [n, W]."""
        if self.mixture is not None:
            similarity = self.mixture(users, items)
        else:
            similarity = self.config.scale * (users * items).sum(dim=1)
        assert self.bias is not None
        return similarity.float() + self.bias

    def _loss(self, users: Tensor, batch: TowerBatch, items: Tensor) -> Tensor:
        if self.config.objective == SELECT:
            return self._select_loss(users, batch, items)
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))  # [L]
        of_event = user_of_step(batch.lengths, len(batch.item))
        owned = Owned.from_pairs(
            torch.cat([of_event, of_label]),
            torch.cat([batch.item, batch.label_item]),
            len(users),
        )
        (pool,) = unite_pools(batch.pools[CANDIDATES])
        candidates = items.index_select(0, torch.searchsorted(batch.pools[ITEMS], pool.own))
        weights = self._weights(batch)
        log_q = None
        if self.log_share is not None:
            log_q = self.config.log_q * self.log_share[pool.own]
        if self.mixture is not None:
            return self._mixture_loss(users, candidates, batch, pool, owned, log_q, weights)
        loss: Tensor = pool_softmax_loss_over_ranks(
            users.index_select(0, of_label),
            batch.label_item,
            candidates,
            pool,
            scale=self.config.scale,
            owner=of_label,
            owned=owned,
            log_q=log_q,
            weights=weights,
        )
        # from a weighted mean to a sum: the weights hold the means of the tasks
        return loss * mean_over_ranks(weights.sum()).to(loss.dtype)

    def _weights(self, batch: TowerBatch) -> Tensor:
        """[L] what each label counts: per task its weight over the task's labels."""
        tasks = batch.label_tasks
        if tasks is None:
            raise ValueError("the batch does not say whose labels are which task's")
        counts = mean_over_ranks(tasks.sum(dim=0))
        shares = torch.where(counts > 0, self.task_weights / counts.clamp(min=1e-9), 0.0)
        return tasks @ shares

    def _mixture_loss(
        self,
        users: Tensor,
        candidates: Tensor,
        batch: TowerBatch,
        pool: UnitedPool,
        owned: Owned,
        log_q: Tensor | None,
        weights: Tensor,
    ) -> Tensor:
        """The same loss by logits [B, P] in memory, since they are no products of two vectors."""
        assert self.mixture is not None
        logits = self.mixture.of_all(users, pool.rows(candidates)).float()
        if log_q is not None:
            logits = logits - pool.rows(log_q)
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))
        own = owned.in_pool(pool.items).mask(len(pool.items))
        target = torch.searchsorted(pool.items, batch.label_item).unsqueeze(1)  # [L, 1]
        own = own.index_select(0, of_label).scatter(1, target, False)
        of_labels = logits.index_select(0, of_label)
        positive = of_labels.gather(1, target).squeeze(1)
        cost = of_labels.masked_fill(own, -torch.inf).logsumexp(dim=1) - positive
        return (weights * cost).sum()

    def _select_loss(self, users: Tensor, batch: TowerBatch, items: Tensor) -> Tensor:
        """Mean cross-entropy of the candidates of all ranks.

        It is linear in the target, so a weighted target is the sum of both losses.
        """
        assert batch.selected is not None and batch.value_rank is not None
        of_label = user_of_step(batch.label_lengths, len(batch.label_item))
        candidates = items.index_select(0, torch.searchsorted(batch.pools[ITEMS], batch.label_item))
        logits = self.logits(users.index_select(0, of_label), candidates)
        rank = torch.where(batch.value_rank.isnan(), batch.selected, batch.value_rank)
        target = torch.lerp(batch.selected, rank, self.config.rank_weight)
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
        number = torch.tensor(float(len(target)), device=target.device)
        return cost / mean_over_ranks(number)

    def training_step(self, batch: TowerBatch, _: int) -> Tensor:
        """Loss of a batch."""
        loss = self.losses(batch)
        log_losses(self, {"loss": loss}, len(batch.user))
        return loss

    def label_loss(self, users: Tensor, batch: SequenceBatch) -> Tensor:
        """The loss of the tasks; of the choose split without hard negatives."""
        assert isinstance(batch, TowerBatch)
        return self._loss(users, batch, self._items(batch))

    @torch.no_grad()
    def embed_all(self) -> Tensor:
        """Embeddings of every item index [V, W]; zeros for one of which nothing is known."""
        every = torch.arange(len(self.corpus.text_lengths))
        parts = [
            self.items(**self.corpus.select(chunk).to(self.device).columns())
            for chunk in every.split(_ITEMS_PER_CHUNK)
        ]
        embeddings = torch.cat(parts).float()
        embeddings[0] = 0
        return embeddings

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with its schedule."""
        return scheduled_optimizer(self, self.optim)
