from __future__ import annotations

from pathlib import Path

import pytest

from recsys.data.simulator import simulate
from recsys.data.simulator.world.world import World
from tests.data.simulator.conftest import load_config

TINY = (
    "users=90",
    "activity.scale=0.03",
    "catalogue.items=2500",
    "catalogue.authors=120",
    "world.recommender.shortlist=100",
)


@pytest.fixture(scope="package")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny world's log."""
    folder = tmp_path_factory.mktemp("world") / "log"
    simulate(load_config("explore_small", *TINY), folder, impressions_per_part=2_000)
    return folder


@pytest.fixture(scope="package")
def world(simulation: Path) -> World:
    return World.open(simulation)
