"""What models that predict tasks share: loss, metrics, predictions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recsys.data.batches.requests import RowsBatch
from recsys.data.contract.schema import Task, TaskKind
from recsys.distributed.gather import mean_over_ranks
from recsys.distributed.table_module import TableModule
from recsys.distributed.training_log import log_losses
from recsys.evaluation.metrics import LossOverRows
from recsys.evaluation.task_metrics import TaskMetrics
from recsys.nn.losses import LabelStatistics, MultiTaskLoss, task_positions


class TaskModule(TableModule):
    """Loss and metrics around a ``forward`` that gives [R, K] of a batch of rows.

    Args:
        tasks: K tasks.
        regression_weight: of the regression tasks in the loss.
        task_balance: how far rare tasks are weighed up in the loss.
        statistics: of the fit labels.
    """

    binary: Tensor

    def __init__(
        self,
        tasks: Sequence[Task],
        regression_weight: float,
        task_balance: float,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        self.loss = MultiTaskLoss(tasks, regression_weight, task_balance, statistics)
        self.metrics = TaskMetrics(tasks)
        self.validation_loss = LossOverRows(len(tasks))
        binary = task_positions(tasks, TaskKind.BINARY)
        self.register_buffer("binary", binary, persistent=False)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Logits to probabilities, seconds as they are: [R, K] float64."""
        predicted = outputs.double()
        predicted[:, self.binary] = predicted[:, self.binary].sigmoid()
        return predicted

    def training_step(self, batch: RowsBatch, _: int) -> Tensor:
        """Total loss of a batch.

        Every task's sum is divided by its rows per rank in the mean over the ranks, so the mean of
        the ranks' losses is the loss of all ranks' rows in one batch.
        """
        rows = mean_over_ranks((~batch.labels.isnan()).sum(dim=0).double())
        loss: Tensor = self.loss(self(batch), batch.labels, rows)
        log_losses(self, {"loss": loss}, len(batch.row_id))
        return loss

    def validation_step(self, batch: RowsBatch, _: int) -> None:
        """Add a batch to the metrics."""
        outputs = self(batch)
        self.validation_loss.update(self.loss.sums(outputs, batch.labels), batch.labels)
        self.metrics.update(self.predictions(outputs), batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics: ``val/ne/<task>`` and so on; ``val/ne/mean`` chooses checkpoints."""
        self.log("val/loss", float(self.validation_loss.compute()))
        self.log_dict({f"val/{name}": value for name, value in self.metrics.compute().items()})
        self.validation_loss.reset()
        self.metrics.reset()

    def predict_step(self, batch: RowsBatch, _: int) -> dict[str, Tensor]:
        """``row_id`` [R] and ``predictions`` [R, K]: probabilities and seconds, float64."""
        return {"row_id": batch.row_id, "predictions": self.predictions(self(batch))}
