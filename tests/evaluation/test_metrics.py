"""Metrics against values computed by hand, and summed over batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.metrics import (
    AreaUnderCurve,
    Calibration,
    LossOverRows,
    MeanSquaredError,
    NormalizedEntropy,
)
from recsys.evaluation.row_losses import cross_entropy, entropy
from recsys.evaluation.task_metrics import TaskMetrics

NAN = math.nan
PROBABILITIES = torch.tensor([[0.8, 0.3], [0.4, 0.3], [0.1, 0.6], [0.5, 0.9]]).double()
LABELS = torch.tensor([[1.0, 0.0], [0.0, NAN], [0.0, 1.0], [0.0, 1.0]])


def test_normalized_entropy_by_hand() -> None:
    metric = NormalizedEntropy(2)
    metric.update(PROBABILITIES, LABELS)
    first = -(math.log(0.8) + math.log(0.6) + math.log(0.9) + math.log(0.5)) / 4
    first /= -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    second = -(math.log(0.7) + math.log(0.6) + math.log(0.9)) / 3
    second /= -(1 / 3 * math.log(1 / 3) + 2 / 3 * math.log(2 / 3))
    torch.testing.assert_close(metric.compute(), torch.tensor([first, second]).double())


def test_predicting_the_base_rate_is_an_ne_of_one() -> None:
    labels = torch.tensor([[1.0], [0.0], [0.0], [1.0], [0.0]])
    metric = NormalizedEntropy(1)
    metric.update(torch.full((5, 1), 0.4, dtype=torch.float64), labels)
    torch.testing.assert_close(metric.compute().item(), 1.0)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, 40) / 6  # many ties
    labels = generator.integers(0, 2, 40).astype(np.float32)
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    expected = ((difference > 0) + 0.5 * (difference == 0)).mean()
    metric = AreaUnderCurve(1)
    metric.update(torch.tensor(scores)[:, None], torch.tensor(labels)[:, None])
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


def test_calibration_and_mean_squared_error_by_hand() -> None:
    calibration, error = Calibration(2), MeanSquaredError(2)
    calibration.update(PROBABILITIES, LABELS)
    error.update(PROBABILITIES, LABELS)
    expected = torch.tensor([1.8 / 1.0, 1.8 / 2.0]).double()
    torch.testing.assert_close(calibration.compute(), expected)
    squares = [(0.04 + 0.16 + 0.01 + 0.25) / 4, (0.09 + 0.16 + 0.01) / 3]
    torch.testing.assert_close(error.compute(), torch.tensor(squares).double())


@pytest.mark.parametrize("kind", [NormalizedEntropy, AreaUnderCurve, Calibration, MeanSquaredError])
def test_batches_and_ranks_add_up(kind: type) -> None:
    """A rank's state is added to another's as torchmetrics reduces it: by sum or by cat."""
    generator = torch.Generator().manual_seed(0)
    predictions = torch.rand(60, 3, generator=generator)
    labels = torch.bernoulli(torch.full((60, 3), 0.3), generator=generator)
    labels[::5, 1] = NAN
    whole, one, other = kind(3), kind(3), kind(3)
    whole.update(predictions, labels)
    for metric, rows in ((one, slice(0, 17)), (one, slice(17, 30)), (other, slice(30, 60))):
        metric.update(predictions[rows], labels[rows])
    for name, reduction in one._reductions.items():
        ours, theirs = getattr(one, name), getattr(other, name)
        if isinstance(ours, Tensor):
            setattr(one, name, reduction(torch.stack([ours, theirs])))
        else:
            setattr(one, name, [reduction(ours + theirs)])
    torch.testing.assert_close(one.compute(), whole.compute())


def test_metrics_that_are_not_defined_are_nan() -> None:
    predictions = torch.tensor([[0.5, 0.5], [0.6, 0.5]])
    labels = torch.tensor([[0.0, NAN], [0.0, NAN]])
    for kind in (NormalizedEntropy, AreaUnderCurve, Calibration):
        metric = kind(2)
        metric.update(predictions, labels)
        assert metric.compute().isnan().all(), kind
    error = MeanSquaredError(2)
    error.update(predictions, labels)
    assert error.compute().isnan().tolist() == [False, True]


def test_certain_and_wrong_is_finite() -> None:
    loss = cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([12 * math.log(10), 1e-12]).double())
    assert entropy(torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.0]


def test_task_metrics_name_every_value() -> None:
    tasks = (Task("liked"), Task("watch_time", TaskKind.REGRESSION), Task("never"))
    metrics = TaskMetrics(tasks)
    predictions = torch.tensor([[0.8, 12.0, 0.1], [0.4, 20.0, 0.2]]).double()
    labels = torch.tensor([[1.0, 10.0, 0.0], [0.0, NAN, 0.0]])
    metrics.update(predictions, labels)
    values = metrics.compute()
    assert set(values) == {
        "ne/liked",
        "ne/never",
        "ne/mean",
        "auc/liked",
        "auc/never",
        "mse/watch_time",
        "calibration/liked",
        "calibration/watch_time",
        "calibration/never",
    }
    expected = -(math.log(0.8) + math.log(0.6)) / 2 / math.log(2)
    assert values["ne/liked"] == pytest.approx(expected)
    assert values["ne/mean"] == values["ne/liked"]  # the NE of `never` is not defined
    assert values["auc/liked"] == 1.0
    assert values["mse/watch_time"] == pytest.approx(4.0)
    assert values["calibration/watch_time"] == pytest.approx(1.2)
    assert math.isnan(values["ne/never"])
    metrics.reset()
    metrics.update(predictions[:1], labels[:1])
    assert metrics.compute()["calibration/liked"] == pytest.approx(0.8)


def test_the_loss_of_all_rows_is_no_mean_of_batch_means() -> None:
    """The first task has 1 and 3 rows in two batches, the second none in the first one."""
    metric = LossOverRows(3)
    metric.update(torch.tensor([4.0, 0.0, 0.0]), torch.tensor([[1.0, NAN, NAN]]))
    labels = torch.tensor([[1.0, 2.0, NAN], [0.0, NAN, NAN], [1.0, 5.0, NAN]])
    metric.update(torch.tensor([2.0, 10.0, 0.0]), labels)
    assert float(metric.compute()) == pytest.approx((4 + 2) / 4 + 10 / 2)
