"""Loss of the multi-task ranker (DV365 equations 7 and 8) and the label statistics it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.data.contract.schema import Task, TaskKind


@dataclass(frozen=True)
class LabelStatistics:
    """Mean and variance of every label over the fit rows.

    Attributes:
        mean: [K] float32; the base rate of a binary task, seconds for watch time.
        variance: [K] float32.
    """

    mean: Tensor
    variance: Tensor

    @classmethod
    def from_labels(cls, labels: Tensor) -> LabelStatistics:
        """Statistics of ``labels`` [R, K], NaN where not observed.

        A label never observed gets mean 0 and variance 1.
        """
        observed = ~torch.isnan(labels)
        count = observed.sum(dim=0).clamp(min=1)
        values = labels.double().nan_to_num()
        mean = values.sum(dim=0) / count
        variance = (((values - mean) * observed).square().sum(dim=0)) / count
        return cls(mean.float(), torch.where(variance > 0, variance, 1.0).float())

    @classmethod
    def neutral(cls, num_tasks: int) -> LabelStatistics:
        """Mean 0 and variance 1: for a model whose state is loaded from a checkpoint."""
        return cls(torch.zeros(num_tasks), torch.ones(num_tasks))


def task_positions(tasks: Sequence[Task], kind: TaskKind) -> Tensor:
    """Positions of the tasks of one kind, int64."""
    return torch.tensor([k for k, task in enumerate(tasks) if task.kind == kind], dtype=torch.int64)


def output_units(tasks: Sequence[Task], statistics: LabelStatistics) -> tuple[Tensor, Tensor]:
    """Offset and scale [K] of outputs, so that a model starts at the base rates.

    Of a binary task the offset is the logit of its mean and the scale 1; of a regression they are
    mean and deviation, so that its head works on the standardised label.
    """
    offset, scale = torch.zeros(len(tasks)), torch.ones(len(tasks))
    binary, regression = (
        task_positions(tasks, kind) for kind in (TaskKind.BINARY, TaskKind.REGRESSION)
    )
    offset[binary] = torch.logit(statistics.mean[binary], eps=1e-4)
    offset[regression] = statistics.mean[regression]
    scale[regression] = statistics.variance[regression].sqrt()
    return offset, scale


class MultiTaskLoss(nn.Module):
    """``Σ_k w_k · BCE_k + a · MSE(watch time)``, each a mean over the rows where it is observed.

    The paper's sum has ``w_k = 1``: a task of one positive in a thousand rows then moves the
    shared layers a hundred times less than one that is positive in a third of them. Here
    ``w_k = (ln 2 / H_k) ** task_balance`` with the entropy ``H_k`` of the fit labels' mean; at 1
    the sum is that of the normalised entropies (equation 12), at 0 it is the paper's.

    The paper leaves the scale of ``a`` open. Squared seconds are hundreds of times a
    cross-entropy and depend on the log, so ``a = regression_weight / variance`` of the fit labels:
    predicting the mean costs ``regression_weight``, about what a balanced binary task costs.

    Args:
        tasks: the K tasks, in the order of the columns.
        regression_weight: a · variance.
        task_balance: exponent of the tasks' weights.
        statistics: of the fit labels.
    """

    binary: Tensor
    regression: Tensor
    variance: Tensor
    weight: Tensor

    def __init__(
        self,
        tasks: Sequence[Task],
        regression_weight: float,
        task_balance: float,
        statistics: LabelStatistics,
    ) -> None:
        super().__init__()
        self.regression_weight = regression_weight
        self.register_buffer("binary", task_positions(tasks, TaskKind.BINARY), persistent=False)
        self.register_buffer(
            "regression", task_positions(tasks, TaskKind.REGRESSION), persistent=False
        )
        self.register_buffer("variance", statistics.variance.clone())
        share = statistics.mean[self.binary].double().clamp(1e-6, 1 - 1e-6)
        entropy = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share))
        self.register_buffer("weight", (math.log(2) / entropy).pow(task_balance).float())

    def forward(self, outputs: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """Total loss of a batch.

        Args:
            outputs: [R, K], logits of binary tasks and seconds of regression tasks.
            labels: [R, K], NaN where not observed.
            rows: [K], by which each task's sum is divided; None for the rows it is observed in.

        Returns:
            Scalar; a task without an observed label adds 0.
        """
        if rows is None:
            rows = (~torch.isnan(labels)).sum(dim=0)
        rows = rows.float()  # outputs may be of a precision that cannot count
        return (self.sums(outputs, labels) / rows.masked_fill(rows == 0, 1)).sum()

    def sums(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Each task's weighted loss summed over the rows where it is observed, [K]."""
        observed = ~torch.isnan(labels)
        targets = labels.nan_to_num()
        cross_entropy = F.binary_cross_entropy_with_logits(
            outputs[:, self.binary], targets[:, self.binary], reduction="none"
        )
        cross_entropy = cross_entropy * self.weight * observed[:, self.binary]
        squared_error = (outputs[:, self.regression] - targets[:, self.regression]).square()
        squared_error = squared_error * (self.regression_weight / self.variance[self.regression])
        squared_error = squared_error * observed[:, self.regression]
        sums = torch.zeros(labels.shape[1], dtype=cross_entropy.dtype, device=outputs.device)
        sums = sums.index_copy(0, self.binary, cross_entropy.sum(dim=0))
        return sums.index_copy(0, self.regression, squared_error.sum(dim=0).to(sums.dtype))
