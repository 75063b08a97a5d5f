"""`recsys bench gap` on a tiny world, with rankers that have hardly learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.cli import bench
from recsys.data.simulator import simulate
from tests.data.simulator.conftest import load_config

gap = bench._load("gap")


@pytest.mark.slow
def test_three_ways_are_measured_by_the_same_rows(tmp_path: Path) -> None:
    tiny = ("users=60", "activity.scale=0.05", "catalogue.items=2500", "catalogue.authors=120")
    simulate(load_config("explore_small", *tiny), tmp_path / "log", 2_000)
    few = ["model.net.dimension=8", "loader.max_events=8", "trainer.max_steps=3"]
    found = gap.run(gap.Config(simulation=str(tmp_path / "log"), seeds=[0], settings=few))
    rows = found["rows"]
    assert rows["regenerated"] >= rows["kept"] > rows["removed"] > 0
    [own] = found["measured"]["regenerated"]
    assert own["relative_ne_delta/mean"] == [0, 0, 0]
    for name in ("kept", "removed"):
        [one] = found["measured"][name]
        assert one["ne"][0] > 0 and len(one["relative_ne_delta/mean"]) == 3
