"""`recsys data simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import OutPath, Settings
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.simulate import simulate


@dataclass(frozen=True)
class SimulateConfig(Settings):
    """What to simulate.

    Attributes:
        simulator: the log.
        out: folder to write.
    """

    simulator: SimulatorConfig
    out: OutPath = MISSING


def configure(overrides: Sequence[str]) -> SimulateConfig:
    """Compose conf/simulate.yaml."""
    return compose("simulate", SimulateConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write the log."""
    config = configure(overrides)
    simulate(config.simulator, Path(config.out))
    message_console().print(f"Simulated log: {config.out}")
