"""`recsys publish`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from recsys.artifacts.timeline_tower import TimelineTowerManifest
from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.core.errors import ConfigError
from recsys.data.contract.moments import to_text
from recsys.data.stores.copies import with_local_folders
from recsys.embeddings.publish import PublishConfig, publish
from recsys.nn.encoders.build import NO_TIMELINES
from recsys.runs.load import check_run_folder
from recsys.runs.publication import write_publication
from recsys.systems.choice import system_of_run
from recsys.systems.dv365.config import DV365RunConfig
from recsys.systems.runs import load_config


def configure(overrides: Sequence[str]) -> PublishConfig:
    """Compose conf/publish.yaml."""
    return compose("publish", PublishConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Publish, note the outcome in the run folder, and print it."""
    config = with_local_folders(configure(overrides), "run_dir", "artifact", "dataset")
    if config.run_dir is not None:
        _refuse_other_systems(Path(config.run_dir))
    outcome = asdict(publish(config))
    if config.run_dir is not None:
        write_publication(Path(config.run_dir), outcome)
    table = Table(title="Published user embeddings", show_header=False)
    for name, value in outcome.items():
        table.add_row(name.replace("_", " "), _text(name, value))
    output_console().print(table)


def _refuse_other_systems(run_dir: Path) -> None:
    check_run_folder(run_dir)
    system, wanted = system_of_run(run_dir).name, TimelineTowerManifest.system
    if system != wanted:
        raise ConfigError(
            f"{run_dir} is a run of {system}, which has no user embeddings to publish; give the "
            f"folder of a {wanted} run."
        )
    config = load_config(run_dir)
    if isinstance(config, DV365RunConfig) and config.encoder.name == NO_TIMELINES:
        raise ConfigError(
            f"{run_dir} was trained without timelines (encoder.name={NO_TIMELINES}), so it has no "
            "user embeddings to publish; give the folder of a run with an encoder."
        )


def _text(name: str, value: object) -> str:
    if name == "as_of" and isinstance(value, int):
        return to_text(value)
    if name == "version" or isinstance(value, str):
        return str(value)
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
