"""The memory that is measured is that of the command."""

from __future__ import annotations

import sys

import pytest

from recsys.cli import bench

prepare_memory = bench._load("prepare_memory")


def test_the_peak_is_that_of_the_process() -> None:
    megabytes = 300
    program = f"block = b'x' * ({megabytes} << 20); del block"
    seconds, peak = prepare_memory.measure([sys.executable, "-c", program])
    assert megabytes << 20 < peak < (megabytes + 100) << 20
    assert seconds > 0


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(AssertionError, match="failed with 3"):
        prepare_memory.measure([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.slow
def test_more_memory_than_allowed_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    small = prepare_memory.Config(
        simulator="demo", users=60, own_events=3_000, own_items=200, own_users=50, limit_gib=0.01
    )
    with pytest.raises(AssertionError, match="the limit is 0"):
        prepare_memory.run(small)
    said = capfd.readouterr().out
    assert "prepare own log, items, users" in said.replace("\n", " ")
