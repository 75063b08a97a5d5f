"""The scale benchmark measures the same steps on every side, and reads back what it wrote."""

from __future__ import annotations

import pytest

from recsys.cli import bench

scale = bench._load("scale")
TINY = scale.Config(users=40, requests=8, steps=3, rounds=1, checkpoint_mib=2)


@pytest.mark.slow  # twelve processes
def test_every_figure_is_there() -> None:
    figures = scale.run(TINY)
    for system in ("dv365", "nxtpost"):
        measured = figures["systems"][system]
        plain, one = measured["samples_per_second_plain"], measured["samples_per_second_1"]
        assert measured["overhead"] == pytest.approx(plain / one - 1)
        two, two_plain = measured["samples_per_second_2"], measured["samples_per_second_two_plain"]
        assert measured["speed_up"] == pytest.approx(two / one)
        assert measured["speed_up_plain"] == pytest.approx(two_plain / plain)
        assert measured["bytes_per_step_2"] > 1000  # gradients of the dense part at least
    for seconds in figures["checkpoint_seconds_per_gib"].values():
        assert seconds["write"] > 0 and seconds["read"] > 0
