"""The few numbers a retrieval run's report starts with, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.reports.retrieval_material import headline
from recsys.reports.retrieval_tables import telling, winner


def _measured(value: float, queries: int) -> dict[str, Any]:
    return {"value": value, "queries": queries, "protocol": ""}


def test_a_metric_at_k_among_no_more_than_k_candidates_is_left_out() -> None:
    metrics = {
        "report/hits@10/batch": _measured(0.5, 11),
        "report/hits@10/unseen_batch": _measured(1.0, 10),
        "report/hits@10/all": _measured(0.25, 4),
    }
    # all items are candidates of `all`, however few the queries
    assert headline(metrics, "report", 40) == {
        "hits@10, batch (11 queries)": "0.5000",
        "hits@10, all (4 queries)": "0.2500",
    }
    assert headline(metrics, "report", 10) == {}


def test_a_metric_without_k_has_a_meaning_among_few_candidates() -> None:
    metrics = {"val/mrr/unseen_batch": _measured(0.75, 4)}
    assert headline(metrics, "val", 40) == {"mrr, unseen_batch (4 queries)": "0.7500"}


def test_a_run_that_was_not_evaluated_has_no_number_of_queries() -> None:
    metrics = {"val/hits@10/batch": {"value": 0.5}}
    assert headline(metrics, "val", 40) == {"hits@10, batch": "0.5000"}


def _beside(low: float, high: float) -> dict[str, Any]:
    return {
        "report/hits@10/all": _measured(0.2, 90),
        "report/popularity/hits@10/all": _measured(0.15, 90),
        "report/last_post/hits@10/all": _measured(0.1, 90),
        "report/popularity/difference/hits@10/all": {
            **_measured(0.05, 90),
            "low": low,
            "high": high,
        },
        "report/last_post/difference/hits@10/all": {**_measured(0.1, 90), "low": 0.1, "high": 0.2},
    }


@pytest.mark.parametrize(
    ("low", "high", "begins"),
    [
        (0.01, 0.09, "The model wins among all: hits@10 0.2000 against 0.1500, difference +0.0500"),
        (-0.02, -0.01, "The model loses to popularity among all: "),
        (-0.02, 0.09, "Among all the model cannot be told from popularity: "),
    ],
)
def test_the_winner_is_said_against_the_next_best(low: float, high: float, begins: str) -> None:
    said = winner(_beside(low, high), "report", "all")
    assert said.startswith(begins)
    assert f"[{low:+.4f}, {high:+.4f}]" in said


def test_without_another_scorer_nobody_wins() -> None:
    assert winner({"report/hits@10/all": _measured(0.2, 90)}, "report", "all") == ""


def test_a_set_of_two_candidates_tells_nothing() -> None:
    metrics = {"report/hits@10/unseen_batch": _measured(1.0, 2), "report/hits@10/all": {}}
    assert not telling(metrics, "report", "unseen_batch")
    assert telling(metrics, "report", "all")
