"""The ranker as Lightning trains it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor

from recsys.core.bounds import NotNegative, OneOf, Settings, Share
from recsys.data.batches.requests import RankingBatch
from recsys.data.contract.manifest import DatasetManifest
from recsys.evaluation.calibration import METHODS, Calibration
from recsys.nn.losses import LabelStatistics
from recsys.systems.kinds.ranking_module import RankerOptimConfig, RankingModule
from recsys.systems.ranker.net import RankerNet, RankerNetConfig


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


class Ranker(RankingModule):
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

    net: RankerNet

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
        super().__init__(
            manifest.tasks, config.regression_weight, config.task_balance, optim, statistics
        )
        #: of these weights, where the run folder has that of others.
        self.calibration: Calibration | None = None
        self.net = RankerNet(
            manifest, config.net, max_length, num_counted, embedding_shape, statistics
        )

    def forward(self, batch: RankingBatch) -> Tensor:
        """[R, K]: logits of binary tasks, seconds of regression tasks."""
        outputs: Tensor = self.net(batch, self.looked_up(batch))
        return outputs
