"""What models of candidates share: tables behind one network, and their optimisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from recsys.core.bounds import Settings
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.schema import Task
from recsys.distributed.schedules import scheduled_optimizer
from recsys.nn.losses import LabelStatistics
from recsys.nn.tables.inputs import TableInputs
from recsys.optim.dense import DenseOptimConfig, DenseOptimizerConfig, ScheduleConfig
from recsys.optim.fused import FusedOptimizerConfig
from recsys.systems.kinds.task_module import TaskModule

_NET = "net"


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


class RankingModule(TaskModule):
    """A ``net`` whose tables are looked up ahead of it.

    Args:
        tasks: K tasks.
        regression_weight: of the regression tasks in the loss.
        task_balance: how far rare tasks are weighed up in the loss.
        optim: optimisers and schedule.
        statistics: of the fit labels.
    """

    net: Any  # of its own kind in each system; its ``lookups`` says what tables are asked

    def __init__(
        self,
        tasks: Sequence[Task],
        regression_weight: float,
        task_balance: float,
        optim: RankerOptimConfig,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__(tasks, regression_weight, task_balance, statistics)
        self.optim = optim

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

    def looked_up(self, batch: RankingBatch) -> dict[str, Any]:
        """What the tables of the network are asked, or gave ahead, by their place in it."""
        features = self.inputs_of(batch).features
        return {path.removeprefix(f"{_NET}."): asked for path, asked in features.items()}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser of the dense weights; that of the tables runs inside the backward."""
        config = DenseOptimConfig(self.optim.dense, self.optim.schedule)
        return scheduled_optimizer(self, config)
