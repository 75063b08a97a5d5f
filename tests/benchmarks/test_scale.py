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
        rates = measured["samples_per_second"]
        plain, one = rates["plain loop"], rates["1 process"]
        assert measured["overhead"]["median"] == pytest.approx(plain / one - 1)
        speed_up = rates["2 processes"] / one
        assert measured["speed_up"]["median"] == pytest.approx(speed_up)
        speed_up = rates["two plain loops at once"] / plain
        assert measured["speed_up_plain"]["median"] == pytest.approx(speed_up)
        assert measured["bytes_per_step_2"] > 1000  # gradients of the dense part at least
    rates = figures["systems"]["dv365"]["samples_per_second"]
    overlapped = figures["systems"]["dv365"]["speed_up_overlap"]["median"]
    in_turn = rates["2 processes, inputs in turn"]
    assert overlapped == pytest.approx(rates["2 processes"] / in_turn)
    for seconds in figures["checkpoint_seconds_per_gib"].values():
        assert seconds["write"] > 0 and seconds["read"] > 0
