"""What was measured a few times is said in words."""

from __future__ import annotations

import polars as pl

from recsys.reports.training_section import training


def log(losses: int, measured: int) -> pl.DataFrame:
    steps = [*range(losses), *range(measured)]
    metric = ["train/loss"] * losses + ["val/ne/mean"] * measured
    return pl.DataFrame({"step": steps, "metric": metric, "value": [0.5] * len(steps)})


def section(log: pl.DataFrame):
    return training({"run": log}, "val/ne/mean", "mean NE", "")


def test_three_points_are_no_curve() -> None:
    found = section(log(50, 3))
    assert "training loss" in found.figure and "mean NE" not in found.figure
    assert found.facts == {
        "mean NE": "0.5000 at step 0; 0.5000 at step 1; 0.5000 at step 2",
    }


def test_four_points_are_one() -> None:
    found = section(log(4, 4))
    assert "training loss" in found.figure and "mean NE" in found.figure
    assert not found.facts


def test_nothing_measured_draws_nothing() -> None:
    found = section(log(0, 0))
    assert not found.figure and not found.facts
