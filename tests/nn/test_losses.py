"""Equations 7 and 8 by hand, with labels missing."""

from __future__ import annotations

import math

import torch

from recsys.data.contract.schema import Task, TaskKind
from recsys.nn.losses import LabelStatistics, MultiTaskLoss

TASKS = (Task("liked"), Task("watch_time", TaskKind.REGRESSION), Task("skip"))
NAN = math.nan


def test_statistics_are_over_observed_labels() -> None:
    labels = torch.tensor([[1.0, 10.0, NAN], [0.0, NAN, NAN], [0.0, 30.0, NAN], [1.0, 20.0, NAN]])
    statistics = LabelStatistics.from_labels(labels)
    torch.testing.assert_close(statistics.mean, torch.tensor([0.5, 20.0, 0.0]))
    torch.testing.assert_close(statistics.variance, torch.tensor([0.25, 200.0 / 3, 1.0]))


def test_loss_by_hand() -> None:
    """Logits ln 3 and 0 are probabilities 0.75 and 0.5."""
    outputs = torch.tensor([[math.log(3), 12.0, 0.0], [0.0, 20.0, 0.0]])
    labels = torch.tensor([[1.0, 10.0, NAN], [0.0, 14.0, 1.0]])
    statistics = LabelStatistics(torch.zeros(3), torch.tensor([1.0, 8.0, 1.0]))
    loss = MultiTaskLoss(TASKS, 0.5, task_balance=0, statistics=statistics)(outputs, labels)
    liked = (-math.log(0.75) - math.log(0.5)) / 2
    watch_time = 0.5 / 8.0 * (2.0**2 + 6.0**2) / 2
    skip = -math.log(0.5)
    torch.testing.assert_close(loss.item(), liked + watch_time + skip)


def test_the_mean_over_ranks_is_the_loss_of_all_rows() -> None:
    """Three rows here and two there; of the third task one row in all, so half a row per rank."""
    outputs = torch.randn(5, 3)
    labels = torch.tensor(
        [[1.0, 10.0, NAN], [0.0, 14.0, NAN], [1.0, NAN, NAN], [0.0, NAN, 1.0], [1.0, NAN, NAN]]
    )
    loss = MultiTaskLoss(TASKS, 0.5, 0.0, LabelStatistics.neutral(3))
    rows = torch.tensor([2.5, 1.0, 0.5])
    here, there = (loss(outputs[part], labels[part], rows) for part in (slice(3), slice(3, 5)))
    torch.testing.assert_close((here + there) / 2, loss(outputs, labels))


def test_unobserved_labels_give_no_gradient() -> None:
    outputs = torch.randn(2, 3, requires_grad=True)
    labels = torch.tensor([[1.0, NAN, NAN], [0.0, 14.0, NAN]])
    loss = MultiTaskLoss(TASKS, 1.0, 1.0, LabelStatistics.neutral(3))(outputs, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert (outputs.grad != 0).tolist() == [[True, False, False], [True, True, False]]


def test_a_log_without_regression_tasks() -> None:
    loss = MultiTaskLoss(TASKS[:1], 1.0, 0.0, LabelStatistics.neutral(1))
    value = loss(torch.zeros(4, 1), torch.ones(4, 1))
    torch.testing.assert_close(value.item(), math.log(2))


def test_predicting_the_mean_costs_the_regression_weight() -> None:
    labels = torch.tensor([[10.0], [20.0], [60.0]])
    statistics = LabelStatistics.from_labels(labels)
    loss = MultiTaskLoss(TASKS[1:2], 0.7, 0.0, statistics)
    torch.testing.assert_close(loss(statistics.mean.expand(3, 1), labels).item(), 0.7)


def test_balanced_losses_of_the_base_rates_are_equal() -> None:
    """At task_balance 1 a loss is ln 2 times the NE, so predicting the base rate costs ln 2."""
    labels = torch.zeros(1000, 2)
    labels[:500, 0], labels[:1, 1] = 1, 1
    statistics = LabelStatistics.from_labels(labels)
    outputs = torch.logit(statistics.mean).expand(1000, 2)
    for k in range(2):
        only = torch.full_like(labels, NAN)
        only[:, k] = labels[:, k]
        loss = MultiTaskLoss((Task("liked"), Task("skip")), 1.0, 1.0, statistics)(outputs, only)
        torch.testing.assert_close(loss.item(), math.log(2), rtol=1e-4, atol=0)
    halfway = MultiTaskLoss((Task("liked"), Task("skip")), 1.0, 0.5, statistics).weight
    rate = 0.001
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    expected = torch.tensor([1.0, math.sqrt(math.log(2) / entropy)])
    torch.testing.assert_close(halfway, expected, rtol=1e-4, atol=0)
