"""A tiny simulated log, prepared once per session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recsys.core.composition import compose
from recsys.data.simulator.simulate import simulate
from recsys.systems.dv365.system import DV365RunConfig

TINY_SIMULATION = (
    "simulator=demo",
    "simulator.users=60",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=100",
)

#: Settings of a run of a few seconds; losses of every step are logged.
TINY_RUN = (
    "experiment=demo",
    "model.dimension=8",
    "loader.batch_requests=16",
    "optim.schedule.warmup_steps=2",
    "trainer.max_steps=12",
    "trainer.validate_every_n_steps=4",
    "trainer.checkpoint_every_n_steps=3",
    "trainer.log_every_n_steps=1",
    "trainer.progress_bar=false",
)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated log; runs prepare it when they first need it."""
    from recsys.cli.simulate import configure

    folder = tmp_path_factory.mktemp("workspace")
    config = configure([*TINY_SIMULATION, f"out={folder / 'log'}"])
    simulate(config.simulator, Path(config.out))
    return folder


@pytest.fixture(scope="session")
def data_overrides(workspace: Path) -> tuple[str, ...]:
    """Overrides that point an experiment to the log of ``workspace``."""
    return (
        f"data.path={workspace / 'log'}",
        f"data.out={workspace / 'prepared'}",
        "data.name=tiny",
    )


@pytest.fixture
def run_config(data_overrides: tuple[str, ...], tmp_path: Path) -> DV365RunConfig:
    """The configuration of a tiny run in a folder of its own."""
    config = compose("train", DV365RunConfig, [*TINY_RUN, *data_overrides])
    return replace(config, run_dir=str(tmp_path / "run"))
