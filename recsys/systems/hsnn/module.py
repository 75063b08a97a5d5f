"""HSNN as Lightning trains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.core.bounds import NotNegative, Settings, Share
from recsys.core.console import message_console
from recsys.data.batches.requests import RankingBatch, RowsBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.distributed.gather import mean_over_ranks
from recsys.distributed.training_log import log_losses
from recsys.evaluation.task_metrics import TaskMetrics
from recsys.index.hierarchy.tree import Tree, tree_health
from recsys.nn.hierarchy.nodes import Learned
from recsys.nn.losses import LabelStatistics
from recsys.systems.hsnn.net import HsnnNet, Outputs
from recsys.systems.hsnn.sizes import HsnnNetConfig
from recsys.systems.kinds.ranking_module import RankerOptimConfig, RankingModule

#: How often in a training nodes are looked after, and steps between two times, at least.
_LOOKED_AFTER, _FEWEST_STEPS = 20, 100


@dataclass(frozen=True)
class HsnnConfig(Settings):
    """The model and its losses.

    Attributes:
        net: sizes of the levels, and how nodes are learned.
        task_balance: how far rare tasks are weighed up in the loss, see ``MultiTaskLoss``.
        regression_weight: weight of watch time in the loss, see ``MultiTaskLoss``.
        level_weight: of the loss of each level of nodes, beside that of the items.
        imitation: weight of the squared difference between a level's interactions and the items'.
        distillation: weight of what a level learns from the items' predictions, of pairs that
            nobody has labelled.
        warmup: share of the training over which the weights of the nodes' losses rise from 0.
    """

    net: HsnnNetConfig = field(default_factory=HsnnNetConfig)
    task_balance: Share = 0.5
    regression_weight: NotNegative = 1.0
    level_weight: NotNegative = 1.0
    imitation: NotNegative = 0.1
    distillation: NotNegative = 1.0
    warmup: Share = 0.1


class Hsnn(RankingModule):
    """Every task of every row, by the network of the items and those of the nodes above them.

    Args:
        config: sizes and losses.
        manifest: features, tasks and vocabulary sizes of the data set.
        max_length: the most recent events.
        num_counted: numbers that are counted of a row.
        optim: optimisers and schedule.
        statistics: of the fit labels; not needed where the state comes from a checkpoint.

    Attributes:
        embed_items: gives the embeddings [V, W] of all items; set to train a model with nodes.
        level_metrics: of every level above the items.
    """

    net: HsnnNet

    def __init__(
        self,
        config: HsnnConfig,
        manifest: DatasetManifest,
        max_length: int,
        num_counted: int,
        optim: RankerOptimConfig,
        statistics: LabelStatistics | None = None,
    ) -> None:
        statistics = statistics or LabelStatistics.neutral(len(manifest.tasks))
        super().__init__(
            manifest.tasks, config.regression_weight, config.task_balance, optim, statistics
        )
        self.config = config
        self.net = HsnnNet(manifest, config.net, max_length, num_counted, statistics)
        self.level_metrics = nn.ModuleList(TaskMetrics(manifest.tasks) for _ in config.net.levels)
        self.embed_items: Callable[[], Tensor] | None = None

    def levels(self, batch: RankingBatch) -> list[Tensor]:
        """[R, K] of every level, the items' last: logits of binary tasks, numbers of others."""
        outputs: list[Tensor] = self.net(batch, self.looked_up(batch))
        return outputs

    def forward(self, batch: RankingBatch) -> Tensor:
        """[R, K] of the items."""
        return self.levels(batch)[-1]

    def training_step(self, batch: RowsBatch, _: int) -> Tensor:
        """Sum of the levels' losses and those of the nodes."""
        assert isinstance(batch, RankingBatch)
        done = self.trainer.global_step / max(self.trainer.estimated_stepping_batches, 1)
        rows = self.net.rows(batch, self.looked_up(batch))
        learned = Learned([])
        if len(self.net.levels):
            learned = self.net.nodes.learn(rows.items, done, mean_over_ranks)
        outputs = self.net.score(rows, learned.nodes)
        warm = min(done / self.config.warmup, 1.0) if self.config.warmup else 1.0
        losses = self._losses(outputs, batch.labels, warm)
        losses |= {name: warm * loss for name, loss in learned.losses.items()}
        total = torch.stack(list(losses.values())).sum()
        log_losses(self, {"loss": total} | losses, len(batch.row_id))
        return total

    def _losses(self, outputs: Outputs, labels: Tensor, warm: float) -> dict[str, Tensor]:
        """By name, weighed; each task's sum is divided by its rows per rank in the mean."""
        config = self.config
        rows = mean_over_ranks((~labels.isnan()).sum(dim=0).double())
        *above, of_items = outputs.levels
        losses = {"items": self.loss(of_items, labels, rows)}
        for number, level in enumerate(above, 1):
            losses[f"level_{number}"] = config.level_weight * warm * self.loss(level, labels, rows)
        if outputs.imitation and config.imitation:
            number_of_rows = mean_over_ranks(labels.new_full((), len(labels))).clamp(min=1)
            summed = torch.stack([one.sum() for one in outputs.imitation]).sum()
            losses["imitation"] = config.imitation * warm * summed / number_of_rows
        unlabelled = labels.isnan().all(dim=1, keepdim=True)
        if above and config.distillation:
            soft = self.predictions(of_items.detach()).to(labels.dtype)
            soft = soft.masked_fill(~unlabelled, torch.nan)
            pairs = mean_over_ranks(unlabelled.sum().double()).expand(labels.shape[1])
            learned = torch.stack([self.loss(level, soft, pairs) for level in above]).sum()
            losses["distillation"] = config.distillation * warm * learned
        return losses

    def on_train_start(self) -> None:
        """Nodes begin where the items are, as the first weights have them."""
        if self.embed_items is not None and self.trainer.global_step == 0:
            self.net.nodes.refit(self.embed_items())

    def on_train_batch_start(self, batch: RowsBatch, batch_idx: int) -> None:
        """Now and then look after the nodes."""
        super().on_train_batch_start(batch, batch_idx)
        steps = max(int(self.trainer.estimated_stepping_batches) // _LOOKED_AFTER, _FEWEST_STEPS)
        step = self.trainer.global_step
        if self.embed_items is not None and step and step % steps == 0:
            self.net.nodes.maintain(self.embed_items())

    def on_validation_epoch_start(self) -> None:
        """Put the items into nodes, anew where these follow the model and not its gradient."""
        if self.embed_items is None:
            return
        items = self.embed_items()
        if self.net.nodes.refitted:
            self.net.nodes.refit(items)
        self._look_at(Tree.of(self.net.nodes.assign(items.to(self.device)).cpu().numpy()))

    def _look_at(self, tree: Tree) -> None:
        """Log how even the nodes are, and name a collapse."""
        for number, health in enumerate(tree_health(tree, self.net.nodes.sizes), 1):
            self.log(f"val/level_{number}/nodes", float(health.used))
            self.log(f"val/level_{number}/largest_share", health.largest_share)
            self.log(f"val/level_{number}/entropy", health.entropy)
            if health.has_collapsed and self.trainer.is_global_zero:
                mend = self.net.nodes.against_collapse
                message_console().print(health.collapse(number, mend))

    def validation_step(self, batch: RowsBatch, _: int) -> None:
        """Add a batch to the metrics of all levels."""
        assert isinstance(batch, RankingBatch)
        *above, outputs = self.levels(batch)
        self.validation_loss.update(self.loss.sums(outputs, batch.labels), batch.labels)
        self.metrics.update(self.predictions(outputs), batch.labels)
        for metrics, level in zip(self.level_metrics, above, strict=True):
            metrics.update(self.predictions(level), batch.labels)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Log the metrics: ``val/ne/mean`` of the items chooses checkpoints."""
        super().on_validation_epoch_end()
        for number, metrics in enumerate(self.level_metrics, 1):
            assert isinstance(metrics, TaskMetrics)
            found = metrics.compute()
            if "ne/mean" in found:
                self.log(f"val/level_{number}/ne/mean", found["ne/mean"])
            metrics.reset()
