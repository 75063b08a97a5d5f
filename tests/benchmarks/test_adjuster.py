"""`recsys bench adjuster` on a few requests of the real log."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli import bench

adjuster = bench._load("adjuster")


@pytest.mark.slow
def test_a_real_log_is_replayed(data_dir: Path) -> None:
    found = adjuster.run(adjuster.Config(requests=150))
    assert found["requests"] == 150
    for one in found["adjusters"].values():
        assert one["samples"] > 1_000 and set(one["tasks"]) == {"click"}
        assert 0 < one["gaps"][-1]["stale"] < 10
