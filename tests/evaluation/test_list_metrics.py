"""Metrics within requests, against every order of tied items counted out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.contract.schema import Task, TaskKind
from recsys.evaluation.list_metrics import list_metrics
from recsys.evaluation.paired import Bootstrap

TASKS = (Task("click"), Task("seconds", TaskKind.REGRESSION))

#: User, moment, label (None where it is not observed), score.
_ROW = st.tuples(
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from([0.0, 1.0, None]),
    st.sampled_from([0.1, 0.5, 0.9]),
)


def measured(rows: list[tuple]) -> dict[str, float]:
    labels = [math.nan if row[2] is None else row[2] for row in rows]
    frame = pl.DataFrame(
        {
            "user": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "request_time": pl.Series([row[1] for row in rows], dtype=pl.Int64),
            "label_click": pl.Series(labels, dtype=pl.Float32),
        }
    )
    predictions = np.array([[row[3], 7.0] for row in rows]).reshape(-1, 2)
    return {name: one.mean for name, one in list_metrics(frame, TASKS, predictions).items()}


def ndcg(labels: list[float], cut: int) -> float:
    gain = sum(label / math.log2(place + 2) for place, label in enumerate(labels[:cut]))
    best = sorted(labels, reverse=True)
    return gain / sum(label / math.log2(place + 2) for place, label in enumerate(best[:cut]))


@settings(max_examples=150, deadline=None)
@given(st.lists(_ROW, max_size=14))
def test_they_are_means_over_requests_and_orders_of_ties(rows: list[tuple]) -> None:
    aucs, ndcgs = [], []
    requests: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for user, moment, label, score in rows:
        if label is not None:
            requests.setdefault((user, moment), []).append((label, score))
    for of in requests.values():
        if len(of) > 6 or len({label for label, _ in of}) < 2:
            if len(of) > 6:
                return
            continue
        positive = [score for label, score in of if label]
        negative = [score for label, score in of if not label]
        pairs = list(itertools.product(positive, negative))
        aucs.append(sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs))
        orders = [
            order
            for order in itertools.permutations(of)
            if all(one[1] >= other[1] for one, other in itertools.pairwise(order))
        ]
        ndcgs.append(np.mean([ndcg([label for label, _ in order], 5) for order in orders]))
    found = measured(rows)
    assert set(found) == {"list_auc/click", "list_ndcg@5/click", "list_ndcg@10/click"}
    for name, values in (("list_auc/click", aucs), ("list_ndcg@5/click", ndcgs)):
        expected = np.mean(values) if values else math.nan
        assert found[name] == pytest.approx(expected, nan_ok=True)


def test_the_worked_example_and_its_interval() -> None:
    rows = [
        (1, 5, 0.0, 0.9),
        (1, 5, 1.0, 0.5),
        (1, 5, 0.0, 0.5),
        (2, 5, 1.0, 0.9),
        (2, 5, 0.0, 0.1),
    ]
    found = measured(rows[:3])
    assert found["list_auc/click"] == pytest.approx(0.25)
    expected = (1 / math.log2(3) + 1 / math.log2(4)) / 2
    assert found["list_ndcg@10/click"] == pytest.approx(expected)
    frame = pl.DataFrame(
        {
            "user": [row[0] for row in rows],
            "request_time": [row[1] for row in rows],
            "label_click": [row[2] for row in rows],
        }
    )
    predictions = np.array([[row[3]] for row in rows])
    means = list_metrics(frame, TASKS[:1], predictions)["list_auc/click"]
    interval = means.interval(Bootstrap(resamples=50))
    assert (interval.low, interval.value, interval.high) == (0.25, 0.625, 1.0)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_what_is_no_number_is_no_order(score: float) -> None:
    assert math.isnan(measured([(1, 5, 0.0, score), (1, 5, 1.0, 0.5)])["list_auc/click"])
    alone = measured([(1, 5, 1.0, score), (2, 5, 1.0, 0.5), (2, 5, 0.0, 0.1)])
    assert alone["list_auc/click"] == 1  # of a request that cannot be measured it says nothing
