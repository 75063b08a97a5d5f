"""Runs, each of the system that its configuration or its folder names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.data.contract.schema import Split
from recsys.evaluation.identity import CheckpointUsed
from recsys.runs import load
from recsys.runs import train as training
from recsys.runs.config import RunConfig
from recsys.runs.load import LoadedRun
from recsys.systems.choice import system_of_run
from recsys.systems.registry import system_named


def train(config: RunConfig) -> Path:
    """Train the system of a configuration (:func:`recsys.runs.train.train`)."""
    return training.train(system_named(config.system), config)


def load_run(
    run_dir: Path | str,
    checkpoint: str = "best",
    dataset_folder: str | None = None,
    measured: Split | None = None,
) -> LoadedRun[Any, Any]:
    """Load a run (:func:`recsys.runs.load.load_run`)."""
    return load.load_run(system_of_run(run_dir), run_dir, checkpoint, dataset_folder, measured)


def load_config(run_dir: Path) -> RunConfig:
    """The resolved configuration of a run (:func:`recsys.runs.load.load_config`)."""
    config: RunConfig = load.load_config(run_dir, system_of_run(run_dir).config)
    return config


def checkpoint_of(run_dir: Path, checkpoint: str) -> CheckpointUsed:
    """What :func:`load_run` would load now (:func:`recsys.runs.load.checkpoint_of`)."""
    load.check_run_folder(run_dir)
    return load.checkpoint_of(system_of_run(run_dir), run_dir, checkpoint)


def given_folders(run_dir: str, *others: str | None) -> list[Path]:
    """The folders that a command on a run was given, for workers who must see them.

    Raises:
        ArtifactError: the first is no run folder.
    """
    load.check_run_folder(Path(run_dir))
    return [Path(run_dir), *(Path(one) for one in others if one is not None)]
