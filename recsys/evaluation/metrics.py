"""Metrics of ranking tasks, each of K tasks at once, summed over batches and ranks.

``update`` takes predictions and labels [R, K]; a NaN label is a row not observed. ``compute``
gives [K], NaN where the metric is not defined. A prediction of an observed row that is not finite
makes every metric of its task undefined: a model that diverged is not good on the other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from recsys.evaluation.row_losses import (
    cross_entropy,
    entropy,
    finite_or_nan,
    observed_sum,
    squared_error,
)


class NormalizedEntropy(Metric):
    """Cross-entropy over the entropy of the mean label of the same rows (DV365 equation 12).

    1 is a model that always predicts the base rate; lower is better. Not defined where all
    labels are equal.

    Args:
        num_tasks: K.

    Attributes:
        measurable: [K] bool, after ``compute`` the tasks whose labels define an NE.
    """

    higher_is_better = False
    full_state_update = False
    loss: Tensor
    positives: Tensor
    rows: Tensor
    measurable: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_tasks, dtype=torch.float64)
        self.add_state("loss", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("positives", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("rows", zeros.clone(), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add rows: probabilities and labels [R, K]."""
        self.loss += observed_sum(cross_entropy(probabilities, labels), labels)
        self.positives += observed_sum(labels.double(), labels)
        self.rows += (~torch.isnan(labels)).sum(dim=0)

    def compute(self) -> Tensor:
        """NE of each task, [K] float64."""
        denominator = entropy(self.positives / self.rows)
        self.measurable = denominator > 0
        denominator = torch.where(self.measurable, denominator, torch.nan)
        return self.loss / self.rows / denominator


class Calibration(Metric):
    """Mean prediction over mean label; 1 is best, above 1 promises too much.

    Not defined where no label is positive.

    Args:
        num_tasks: K.
    """

    full_state_update = False
    predicted: Tensor
    observed: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_tasks, dtype=torch.float64)
        self.add_state("predicted", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("observed", zeros.clone(), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add rows: predictions and labels [R, K]."""
        self.predicted += observed_sum(finite_or_nan(predictions), labels)
        self.observed += observed_sum(labels.double(), labels)

    def compute(self) -> Tensor:
        """Calibration of each task, [K] float64."""
        return self.predicted / torch.where(self.observed > 0, self.observed, torch.nan)


class _LossAndRows(Metric):
    """Sums of a loss and of the rows it is observed in, by task."""

    higher_is_better = False
    full_state_update = False
    loss: Tensor
    rows: Tensor

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_tasks, dtype=torch.float64)
        self.add_state("loss", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("rows", zeros.clone(), dist_reduce_fx="sum")


class MeanSquaredError(_LossAndRows):
    """Mean squared error of K regression tasks, in squared units of the label.

    Args:
        num_tasks: K.
    """

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add rows: predictions and labels [R, K]."""
        self.loss += observed_sum(squared_error(predictions, labels), labels)
        self.rows += (~torch.isnan(labels)).sum(dim=0)

    def compute(self) -> Tensor:
        """MSE of each task, [K] float64; NaN without rows."""
        return self.loss / self.rows


class LossOverRows(_LossAndRows):
    """The loss of all rows: the sum over tasks of each one's mean loss; a task never seen adds 0.

    Args:
        num_tasks: K.
    """

    def update(self, sums: Tensor, labels: Tensor) -> None:
        """Add rows: each task's loss summed over them [K], and their labels [R, K]."""
        self.loss += sums
        self.rows += (~torch.isnan(labels)).sum(dim=0)

    def compute(self) -> Tensor:
        """Scalar, float64."""
        return (self.loss / self.rows.clamp(min=1)).sum()


class AreaUnderCurve(Metric):
    """Exact area under the ROC curve; a tie between a positive and a negative counts one half.

    Keeps every prediction in memory. Not defined where all labels are equal.

    Args:
        num_tasks: K.
    """

    higher_is_better = True
    full_state_update = False
    predictions: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add rows: probabilities and labels [R, K]."""
        self.predictions.append(probabilities)
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """AUC of each task, [K] float64."""
        areas = torch.full((self.num_tasks,), torch.nan, dtype=torch.float64)
        if not len(self.labels):
            return areas
        predictions, labels = dim_zero_cat(self.predictions), dim_zero_cat(self.labels)
        for task in range(self.num_tasks):
            known = ~torch.isnan(labels[:, task])
            scores, targets = predictions[known, task], labels[known, task].long()
            if 0 < targets.sum() < len(targets) and scores.isfinite().all():
                areas[task] = binary_auroc(scores, targets)
        return areas
