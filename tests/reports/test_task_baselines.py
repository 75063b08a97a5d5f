"""Whether a model beats a baseline, in words."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.reports.task_baselines import baseline_rows, strongest, verdict


def metric(value: float | None, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "protocol": ""}


def measured(change: dict[str, Any]) -> dict[str, Any]:
    return {
        "report/ne/click": metric(0.8),
        "report/ne/save": metric(0.9),
        "report/ne/mean": metric(0.85),
        "report/user_mean/ne/click": metric(0.9),
        "report/user_mean/ne/save": metric(0.88),
        "report/user_mean/ne/mean": metric(0.89),
        "report/user_mean/relative_ne_delta/click": metric(-9, -10, -8),
        "report/user_mean/relative_ne_delta/save": metric(2, 1, 3),
        "report/user_mean/relative_ne_delta/mean": change,
        "report/fit_mean/ne/mean": metric(1.0),
        "report/fit_mean/relative_ne_delta/mean": metric(-15, -16, -14),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            metric(-4.5, -5, -4),
            "The model beats the smoothed user mean: mean NE -4.50 % [-5.00, -4.00]; worse in "
            "save.",
        ),
        (
            metric(4.5, 4, 5),
            "The model is worse than the smoothed user mean: mean NE +4.50 % [+4.00, +5.00]; "
            "better in click.",
        ),
        (
            metric(-1, -2, 1),
            "The model cannot be told from the smoothed user mean: mean NE -1.00 % [-2.00, +1.00]; "
            "better in click; worse in save.",
        ),
        (
            metric(-1),
            "The model beside the smoothed user mean, without an interval: mean NE -1.00 %; better "
            "in click; worse in save.",
        ),
        (metric(None), "Whether the model beats the smoothed user mean is not defined."),
    ],
)
def test_a_verdict_names_the_change_and_what_is_otherwise(change: dict, said: str) -> None:
    assert verdict(measured(change), "report", "user_mean") == said


def test_the_best_of_the_means_is_the_one_to_know() -> None:
    assert strongest(measured(metric(-4.5, -5, -4)), "report") == ["user_mean"]
    assert strongest({}, "report") == []


def test_a_regression_task_alone_is_compared_by_its_error() -> None:
    metrics = {
        "report/mse/watch_time": metric(90.0),
        "report/user_mean/mse/watch_time": metric(100.0),
        "report/user_mean/relative_mse_delta/watch_time": metric(-10, -12, -8),
        "report/user_mean/relative_ne_delta/mean": metric(None),
    }
    assert verdict(metrics, "report", "user_mean") == (
        "The model beats the smoothed user mean: MSE of watch_time -10.00 % [-12.00, -8.00]."
    )
    assert baseline_rows(metrics, "report") == [
        ["task", "model", "smoothed user mean"],
        ["watch_time", "90.0000", "100.0000"],
    ]
