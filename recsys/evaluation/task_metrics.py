"""All metrics of a multi-task ranker, by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.metrics import (
    AreaUnderCurve,
    Calibration,
    MeanSquaredError,
    NormalizedEntropy,
)

#: How equal scores count, by the first part of a metric's name.
TIE_RULES = {"auc": "a tie between a positive and a negative counts one half"}


class TaskMetrics(nn.Module):
    """NE, AUC and calibration of every binary task, MSE and calibration of every regression task.

    Args:
        tasks: the K tasks, in the order of the columns.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.binary = [k for k, task in enumerate(tasks) if task.kind == TaskKind.BINARY]
        self.regression = [k for k, task in enumerate(tasks) if task.kind == TaskKind.REGRESSION]
        self.normalized_entropy = NormalizedEntropy(len(self.binary))
        self.area_under_curve = AreaUnderCurve(len(self.binary))
        self.mean_squared_error = MeanSquaredError(len(self.regression))
        self.calibration = Calibration(len(self.tasks))

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add rows.

        Args:
            predictions: [R, K], probabilities of binary tasks and seconds of regression tasks.
            labels: [R, K], NaN where not observed.
        """
        self.calibration.update(predictions, labels)
        if self.binary:
            self.normalized_entropy.update(predictions[:, self.binary], labels[:, self.binary])
            self.area_under_curve.update(predictions[:, self.binary], labels[:, self.binary])
        if self.regression:
            self.mean_squared_error.update(
                predictions[:, self.regression], labels[:, self.regression]
            )

    def compute(self) -> dict[str, float]:
        """Values by name: ``ne/<task>``, ``auc/<task>``, ``mse/<task>``, ``calibration/<task>``,
        and ``ne/mean``, the mean over the binary tasks whose labels define an NE; undefined where
        the predictions of one of them are not finite.
        """
        values: dict[str, float] = {}
        if self.binary:
            normalized_entropies = self.normalized_entropy.compute()
            values |= self._by_name("ne", self.binary, normalized_entropies)
            values |= self._by_name("auc", self.binary, self.area_under_curve.compute())
            measurable = self.normalized_entropy.measurable
            values["ne/mean"] = normalized_entropies.reshape(-1)[measurable].mean().item()
        if self.regression:
            values |= self._by_name("mse", self.regression, self.mean_squared_error.compute())
        everything = list(range(len(self.tasks)))
        return values | self._by_name("calibration", everything, self.calibration.compute())

    def reset(self) -> None:
        """Forget all rows."""
        self.normalized_entropy.reset()
        self.area_under_curve.reset()
        self.mean_squared_error.reset()
        self.calibration.reset()

    def _by_name(self, metric: str, positions: list[int], values: Tensor) -> dict[str, float]:
        names = (f"{metric}/{self.tasks[k].name}" for k in positions)
        # torchmetrics squeezes the value of a single task to a scalar
        return dict(zip(names, values.reshape(-1).tolist(), strict=True))
