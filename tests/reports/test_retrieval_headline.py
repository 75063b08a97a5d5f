"""The few numbers a retrieval run's report starts with, by hand."""

from __future__ import annotations

from typing import Any

from recsys.reports.retrieval_material import headline


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
