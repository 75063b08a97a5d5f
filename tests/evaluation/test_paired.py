"""Comparisons of runs by hand, their intervals, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.core.errors import DataError
from recsys.data.contract.schema import TaskKind
from recsys.evaluation import paired
from recsys.evaluation.metrics import NormalizedEntropy
from recsys.evaluation.paired import Bootstrap, TaskPredictions, captured_gain, relative_delta

QUICK = Bootstrap(resamples=200)


def run(predictions: list[float], labels: list[float], users: list[int]) -> TaskPredictions:
    return TaskPredictions(
        np.arange(len(labels)), np.array(users), np.array(labels), np.array(predictions)
    )


CONTROL = run([0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, math.nan], [1, 1, 2, 2])
TEST = replace(CONTROL, predictions=np.array([0.8, 0.5, 0.4, 0.1]))
BEST = replace(CONTROL, predictions=np.array([0.9, 0.2, 0.1, 0.1]))


def simulated(rows: int = 4000, users: int = 200) -> dict[str, TaskPredictions]:
    """Users of different rates: nothing known, half known, all known."""
    generator = np.random.default_rng(5)
    user = generator.integers(0, users, rows)
    truth = generator.beta(1, 3, users)[user]
    labels = (generator.random(rows) < truth).astype(float)
    base = TaskPredictions(np.arange(rows), user, labels, np.full(rows, 0.25))
    return {
        "without": base,
        "with": replace(base, predictions=(truth + 0.25) / 2),
        "best": replace(base, predictions=truth),
    }


def normalized_entropy(run: TaskPredictions) -> float:
    metric = NormalizedEntropy(1)
    metric.update(torch.tensor(run.predictions)[:, None], torch.tensor(run.labels)[:, None])
    return metric.compute().item()


def test_sums_of_draws_do_not_depend_on_how_many_are_made_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    per_user = np.random.default_rng(0).normal(size=(7, 2))
    generator = np.random.default_rng(QUICK.seed)
    expected = [per_user[generator.integers(0, 7, 7)].sum(axis=0) for _ in range(QUICK.resamples)]
    np.testing.assert_allclose(QUICK.sums(per_user), expected)
    monkeypatch.setattr(paired, "_DRAWN_BYTES", 3 * 8 * 7)  # three draws at a time
    np.testing.assert_allclose(QUICK.sums(per_user), expected)


def test_relative_delta_by_hand() -> None:
    test = -(math.log(0.8) + math.log(0.5) + math.log(0.6))
    control = 3 * math.log(2)
    delta = relative_delta(TEST, CONTROL, QUICK)
    assert delta.value == pytest.approx(100 * (test - control) / control)


def test_relative_delta_is_that_of_the_normalized_entropies() -> None:
    runs = simulated()
    test, control = normalized_entropy(runs["with"]), normalized_entropy(runs["without"])
    delta = relative_delta(runs["with"], runs["without"], QUICK)
    assert delta.value == pytest.approx(100 * (test - control) / control)


def test_relative_delta_of_a_regression_task_is_that_of_the_squared_errors() -> None:
    control = replace(CONTROL, kind=TaskKind.REGRESSION, predictions=np.array([2.0, 1.0, 1.0, 9.0]))
    test = replace(control, predictions=np.array([2.0, 1.0, 0.0, 9.0]))
    assert relative_delta(test, control, QUICK).value == pytest.approx(100 * (2 - 3) / 3)


def test_captured_gain_by_hand() -> None:
    without = 3 * math.log(2)
    with_timelines = -(math.log(0.8) + math.log(0.5) + math.log(0.6))
    best = -(math.log(0.9) + math.log(0.8) + math.log(0.9))
    gain = captured_gain(CONTROL, TEST, BEST, QUICK)
    assert gain.value == pytest.approx((without - with_timelines) / (without - best))


def test_bootstrap_draws_whole_users() -> None:
    """Two users, each drawn 0, 1 or 2 times: four equally likely draws, three outcomes."""
    per_user = np.array([[1.0, 10.0], [5.0, 20.0]])
    sums = Bootstrap(resamples=2000).sums(per_user)
    outcomes, counts = np.unique(sums, axis=0, return_counts=True)
    assert outcomes.tolist() == [[2.0, 20.0], [6.0, 30.0], [10.0, 40.0]]
    assert counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_interval_has_the_spread_of_the_linearised_ratio() -> None:
    """Delta method over users: an independent estimate of the standard error."""
    runs = simulated()
    interval = relative_delta(runs["with"], runs["without"], Bootstrap(resamples=1000))
    test, control = (
        np.bincount(r.user, -np.log(np.where(r.labels > 0, r.predictions, 1 - r.predictions)))
        for r in (runs["with"], runs["without"])
    )
    ratio = test.sum() / control.sum()
    error = 100 * np.sqrt(((test - ratio * control) ** 2).sum()) / control.sum()
    assert interval.low < interval.value < interval.high < 0
    assert (interval.high - interval.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_same_seed_same_interval() -> None:
    runs = simulated()
    first = captured_gain(runs["without"], runs["with"], runs["best"], QUICK)
    assert first == captured_gain(runs["without"], runs["with"], runs["best"], QUICK)
    other = captured_gain(runs["without"], runs["with"], runs["best"], replace(QUICK, seed=1))
    assert other.value == first.value and other.low != first.low
    assert 0 < first.low < first.value < first.high < 1


def test_order_of_rows_does_not_matter() -> None:
    order = np.array([2, 0, 3, 1])
    shuffled = replace(
        TEST,
        **{
            name: getattr(TEST, name)[order] for name in ("row_id", "user", "labels", "predictions")
        },
    )
    assert relative_delta(shuffled, CONTROL, QUICK) == relative_delta(TEST, CONTROL, QUICK)


def test_no_possible_gain_defines_no_share() -> None:
    gain = captured_gain(CONTROL, TEST, CONTROL, QUICK)
    assert math.isnan(gain.value) and math.isnan(gain.low) and math.isnan(gain.high)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"row_id": np.array([0, 1, 2, 4])}, "row_id"),
        ({"labels": np.array([1.0, 0.0, 1.0, math.nan])}, "labels"),
        ({"labels": np.array([1.0, 0.0, 0.0, 0.0])}, "labels"),
        ({"user": np.array([1, 1, 2, 3])}, "user"),
    ],
)
def test_other_rows_are_refused(changed: dict[str, np.ndarray], name: str) -> None:
    with pytest.raises(DataError, match=f"their {name} differ"):
        relative_delta(replace(TEST, **changed), CONTROL)


def test_fewer_rows_are_refused() -> None:
    fewer = run([0.5], [1.0], [1])
    with pytest.raises(DataError, match="1 rows"):
        relative_delta(TEST, fewer)
