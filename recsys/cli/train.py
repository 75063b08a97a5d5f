"""`recsys train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recsys.errors import ConfigError
from recsys.paths import conf_dir
from recsys.training.composition import load
from recsys.training.config import RunConfig
from recsys.training.load import CONFIG_FILE, load_config
from recsys.training.run import train
from recsys.training.systems.choice import compose_run, system_of_file


def configure(overrides: Sequence[str]) -> RunConfig:
    """Compose the configuration of a run; a run that is resumed keeps its own configuration.

    Raises:
        RecsysError: an override does not fit, or the run to resume is not there.
    """
    config = compose_run(overrides)
    if config.resume and config.run_dir is not None:
        path = Path(config.run_dir) / CONFIG_FILE
        load_config(path.parent)
        for override in overrides:
            if (conf_dir() / override.partition("=")[0]).is_dir():
                raise ConfigError(
                    f"`{override}` chooses a file of conf/, but a resumed run takes its "
                    f"configuration from {path}; leave it out, and give single settings to change."
                )
        return load(path, system_of_file(path).config, overrides)
    return config


def run(overrides: Sequence[str]) -> None:
    """Train and say where the run folder is."""
    run_dir = train(configure(overrides))
    Console(stderr=True).print(f"Run folder: {run_dir}")
