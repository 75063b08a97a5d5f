"""The data set of the demo, simulated and prepared for a benchmark."""

from __future__ import annotations

from pathlib import Path

from recsys.cli.simulate import configure as configure_simulation
from recsys.core.composition import compose
from recsys.data.prepare.prepare import prepare
from recsys.data.simulator.simulate import simulate
from recsys.systems.dv365.system import DV365RunConfig


def prepare_demo(users: int, folder: Path) -> DV365RunConfig:
    """A run of the demo on a log of so many users, simulated and prepared below ``folder``."""
    simulation = configure_simulation(
        ["simulator=demo", f"simulator.users={users}", f"out={folder / 'log'}"]
    )
    simulate(simulation.simulator, Path(simulation.out))
    data = (f"data.path={folder / 'log'}", f"data.out={folder / 'prepared'}")
    config = compose("train", DV365RunConfig, ["experiment=demo", *data])
    prepare(config.data)
    return config
