"""The ranker as Lightning trains it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from recsys.core.bounds import NotNegative, OneOf, Settings, Share
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.distributed.schedules import scheduled_optimizer
from recsys.evaluation.calibration import METHODS, Calibration
from recsys.nn.losses import LabelStatistics
from recsys.nn.tables.inputs import TableInputs
from recsys.optim.dense import DenseOptimConfig, DenseOptimizerConfig, ScheduleConfig
from recsys.optim.fused import FusedOptimizerConfig
from recsys.systems.kinds.task_module import TaskModule
from recsys.systems.ranker.net import RankerNet, RankerNetConfig

_NET = "net"


@dataclass(frozen=True)
class RankerConfig(Settings):
    """The model and its loss.

    Attributes:
        net: sizes.
        task_balance: how far rare tasks are weighed up in the loss, see ``MultiTaskLoss``.
        regression_weight: weight of watch time in the loss, see ``MultiTaskLoss``.
        calibration: of the probabilities, on the choose split when the training is over:
            ``isotonic``, ``platt``, or ``none``.
    """

    net: RankerNetConfig = field(default_factory=RankerNetConfig)
    task_balance: Share = 0.5
    regression_weight: NotNegative = 1.0
    calibration: Annotated[str, OneOf(METHODS)] = "isotonic"


@dataclass(frozen=True)
class RankerOptimConfig(Settings):
    """Optimisers of dense weights and tables, and the schedule all follow.

    Attributes:
        dense: of everything that is no table.
        tables: of all tables.
        schedule: of all learning rates.
    """

    dense: DenseOptimizerConfig = field(default_factory=DenseOptimizerConfig)
    tables: FusedOptimizerConfig = field(
        default_factory=lambda: FusedOptimizerConfig(learning_rate=0.1)
    )
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)


class Ranker(TaskModule):
    """The second stage: every task of every candidate of a request.

    Args:
        config: sizes and loss.
        manifest: features, tasks and vocabulary sizes of the data set.
        max_length: the most recent events.
        num_counted: numbers that are counted of a row.
        embedding_shape: of published user embeddings; None for a model that reads none.
        optim: optimisers and schedule.
        statistics: of the fit labels; not needed where the state comes from a checkpoint.
    """

    def __init__(
        self,
        config: RankerConfig,
        manifest: DatasetManifest,
        max_length: int,
        num_counted: int,
        embedding_shape: tuple[int, int] | None,
        optim: RankerOptimConfig,
        statistics: LabelStatistics | None = None,
    ) -> None:
        statistics = statistics or LabelStatistics.neutral(len(manifest.tasks))
        super().__init__(manifest.tasks, config.regression_weight, config.task_balance, statistics)
        self.optim = optim
        #: of these weights, where the run folder has that of others.
        self.calibration: Calibration | None = None
        self.net = RankerNet(
            manifest, config.net, max_length, num_counted, embedding_shape, statistics
        )

    def table_optimizers(self) -> dict[str, FusedOptimizerConfig]:
        """One for all tables."""
        return {_NET: self.optim.tables}

    def table_schedule(self) -> ScheduleConfig:
        """That of all learning rates."""
        return self.optim.schedule

    def table_inputs(self, batch: RankingBatch) -> TableInputs:
        """Ids of candidates and events, and the features of users and items."""
        lookups = self.net.lookups(batch)
        return TableInputs({f"{_NET}.{path}": asked for path, asked in lookups.items()})

    def forward(self, batch: RankingBatch) -> Tensor:
        """[R, K]: logits of binary tasks, seconds of regression tasks."""
        features = self.inputs_of(batch).features
        outputs: Tensor = self.net(
            batch, {path.removeprefix(f"{_NET}."): asked for path, asked in features.items()}
        )
        return outputs

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser of the dense weights; that of the tables runs inside the backward."""
        config = DenseOptimConfig(self.optim.dense, self.optim.schedule)
        return scheduled_optimizer(self, config)
