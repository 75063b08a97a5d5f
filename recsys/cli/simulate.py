"""`recsys data simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import OutPath, Place, Settings
from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.data.contract.table_sinks import check_new_table, write_table
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.files import LOG_FOLDER, PARTS, read_description, write_description
from recsys.data.simulator.simulate import simulate


@dataclass(frozen=True)
class SimulateConfig(Settings):
    """What to simulate.

    Attributes:
        simulator: the log.
        out: folder to write.
        table: a new table to which the log is written too; None for none.
    """

    simulator: SimulatorConfig
    out: OutPath = MISSING
    table: Place | None = None


def configure(overrides: Sequence[str]) -> SimulateConfig:
    """Compose conf/simulate.yaml."""
    return compose("simulate", SimulateConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write the log."""
    config = configure(overrides)
    folder, console = Path(config.out), message_console()
    if config.table is not None:
        check_new_table(config.table)
    simulate(config.simulator, folder)
    console.print(f"Simulated log: {config.out}")
    if config.table is not None:
        snapshot = write_table(config.table, sorted((folder / LOG_FOLDER).glob(PARTS)))
        table = {"name": config.table, "snapshot": snapshot}
        write_description(folder, read_description(folder) | {"table": table})
        console.print(f"The same as a table: {config.table} (snapshot {snapshot})")
