"""`recsys export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.core.location import is_url, shown
from recsys.core.mirror import mirrored
from recsys.data.stores.copies import with_local_folders
from recsys.systems.base import ExportConfig
from recsys.systems.registry import system_named
from recsys.systems.runs import load_run


def configure(overrides: Sequence[str]) -> ExportConfig:
    """Compose conf/export.yaml."""
    return compose("export", ExportConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Export the run's user tower and say where the artifact is."""
    export(configure(overrides))


def export(config: ExportConfig) -> None:
    """Export a run and say where the artifact is."""
    config = with_local_folders(config, "run_dir", "dataset")
    if config.out is not None and is_url(config.out):
        with mirrored(config.out) as copy:
            _exported(replace(config, out=str(copy)))
        message_console().print(f"Artifact: {shown(config.out)}")
        return
    message_console().print(f"Artifact: {_exported(config)}")


def _exported(config: ExportConfig) -> Path:
    config.folder(Path(config.run_dir), config.dataset)  # refused before the run is loaded
    trained = load_run(config.run_dir, config.checkpoint, config.dataset)
    return system_named(trained.config.system).export(trained, config)
