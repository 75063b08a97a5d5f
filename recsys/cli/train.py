"""`recsys train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recsys.training.composition import compose, load
from recsys.training.config import RunConfig
from recsys.training.load import CONFIG_FILE, load_config
from recsys.training.run import train


def configure(overrides: Sequence[str]) -> RunConfig:
    """Compose conf/train.yaml; a run that is resumed keeps its own configuration.

    Raises:
        RecsysError: an override does not fit, or the run to resume is not there.
    """
    config = compose("train", RunConfig, overrides)
    if config.resume and config.run_dir is not None:
        load_config(Path(config.run_dir))
        return load(Path(config.run_dir) / CONFIG_FILE, RunConfig, overrides)
    return config


def run(overrides: Sequence[str]) -> None:
    """Train and say where the run folder is."""
    run_dir = train(configure(overrides))
    Console(stderr=True).print(f"Run folder: {run_dir}")
