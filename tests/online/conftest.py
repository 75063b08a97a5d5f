from __future__ import annotations

import pytest

from recsys.data.simulator.world.world import World
from tests.data.simulator.conftest import load_config


@pytest.fixture(scope="package")
def world() -> World:
    """The small world, without a log."""
    config = load_config(
        "explore_small",
        "users=200",
        "activity.scale=0.06",
        "catalogue.items=4000",
        "days=1",
        "fit_days=0",
        "choose_days=0",
        "report_days=0",
    )
    return World(config)
