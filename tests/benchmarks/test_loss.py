"""The benchmark of the losses compares, and measures the memory of the loss alone."""

from __future__ import annotations

import pytest

from recsys.cli import bench

loss = bench._load("loss")
SMALL = loss.Config(users=[2, 4, 30], steps=100, materialised_users=30, catalogue_queries=50)


@pytest.mark.slow
def test_the_figures_and_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    result = loss.run(SMALL)
    row = result["sizes"][2]
    # three matrices of 3000 x 3000 float32 are 0.1 GiB: more than any overhead
    assert row["materialised_gib"] - row["tiled_gib"] > 0.03
    assert result["pool_memory_ratio"] == row["materialised_gib"] / row["tiled_gib"]
    assert len(result["sizes"]) == 4
    assert "3,000" in capsys.readouterr().out


def test_growth_is_the_slope_of_the_logarithms() -> None:
    rows = [{"pool": 10.0**k, "gib": 7 * 100.0**k} for k in range(5)]
    assert loss._exponent(rows, "gib") == pytest.approx(2)


def test_more_memory_than_allowed_is_an_error() -> None:
    row = {"tiled_process_gib": 5.0, "tiled_loss": 1.0, "pool": 10}
    with pytest.raises(AssertionError, match=r"5.00 GiB at a pool of 10, the limit is 4"):
        loss._check(row, 4.0)
    with pytest.raises(AssertionError, match="should be the same"):
        loss._check(row | {"materialised_loss": 1.1}, 6.0)
