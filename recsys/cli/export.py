"""`recsys export`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recsys.export.artifact import ExportConfig, export_run
from recsys.training.composition import compose
from recsys.training.load import load_run


def configure(overrides: Sequence[str]) -> ExportConfig:
    """Compose conf/export.yaml."""
    return compose("export", ExportConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Export the run's user tower and say where the artifact is."""
    config = configure(overrides)
    folder = export_run(load_run(config.run_dir, config.checkpoint, config.dataset), config)
    Console(stderr=True).print(f"Artifact: {folder}")
