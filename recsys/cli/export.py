"""`recsys export`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from recsys.errors import ConfigError
from recsys.export.artifact import ExportConfig, export_run
from recsys.export.nxtpost_run import export_nxtpost
from recsys.training.composition import compose
from recsys.training.load import load_run

#: How the user tower of a system is exported.
EXPORTS: dict[str, Callable[[Any, ExportConfig], Path]] = {
    "dv365": export_run,
    "nxtpost": export_nxtpost,
}


def configure(overrides: Sequence[str]) -> ExportConfig:
    """Compose conf/export.yaml."""
    return compose("export", ExportConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Export the run's user tower and say where the artifact is."""
    config = configure(overrides)
    trained = load_run(config.run_dir, config.checkpoint, config.dataset)
    if trained.config.system not in EXPORTS:
        raise ConfigError(
            f"{config.run_dir} is a run of {trained.config.system}; user towers of "
            f"{' and '.join(EXPORTS)} can be exported."
        )
    folder = EXPORTS[trained.config.system](trained, config)
    Console(stderr=True).print(f"Artifact: {folder}")
