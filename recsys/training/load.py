"""From a run folder back to its configuration, data set and trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl

from recsys.data.dataset import PreparedDataset
from recsys.data.manifest import DatasetManifest
from recsys.data.prepare import GROWN_FROM
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.errors import ArtifactError
from recsys.training.checkpoints import BEST, FOLDER, LAST
from recsys.training.composition import load
from recsys.training.config import RunConfig
from recsys.training.systems import system_named
from recsys.training.systems.choice import system_of_file

CONFIG_FILE = "config.yaml"
NAMED_CHECKPOINTS = {"best": BEST, "last": LAST}

Config = TypeVar("Config", bound=RunConfig)
Model = TypeVar("Model", bound=pl.LightningModule)


@dataclass(frozen=True)
class CheckpointUsed:
    """Which weights of a run something was made with.

    Attributes:
        name: file name of the checkpoint.
        chosen_by: the rule that chose it.
        step: optimiser steps it was trained for.
    """

    name: str
    chosen_by: str
    step: int


@dataclass(frozen=True)
class LoadedRun(Generic[Config, Model]):
    """A trained model with everything it was trained on.

    Attributes:
        folder: the run folder.
        config: the run's resolved configuration.
        manifest: of the data set.
        dataset: the prepared data set.
        model: the trained model, in evaluation mode.
        checkpoint: file name of the checkpoint the weights come from.
        chosen_by: the rule that chose it.
        step: optimiser steps it was trained for.
    """

    folder: Path
    config: Config
    manifest: DatasetManifest
    dataset: PreparedDataset
    model: Model
    checkpoint: str
    chosen_by: str
    step: int

    @property
    def checkpoint_used(self) -> CheckpointUsed:
        """Which of the run's weights these are."""
        return CheckpointUsed(self.checkpoint, self.chosen_by, self.step)


def load_run(
    run_dir: Path | str, checkpoint: str = "best", dataset_folder: str | None = None
) -> LoadedRun[Any, Any]:
    """Load a run.

    Args:
        run_dir: the run folder.
        checkpoint: ``best`` (by the choose split), ``last``, or a path.
        dataset_folder: the prepared data set, where it was moved since the training.

    Raises:
        ArtifactError: the folder is no run, a file is damaged, or the prepared data set is not
            the one the run was trained on.
    """
    folder = Path(run_dir)
    config = load_config(folder)
    dataset = open_dataset(folder, config, dataset_folder)
    manifest = DatasetManifest.load(folder)  # as trained on; the data set may have grown since
    model = system_named(config.system).restore(config, dataset, manifest)
    path = checkpoint_path(folder, checkpoint)
    stored = open_checkpoint(path)
    stored.check()
    try:
        model.load_state_dict(stored.weights())
    except RuntimeError as error:
        raise ArtifactError(
            f"{path} does not fit the model that {folder / CONFIG_FILE} describes: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    model.eval()
    rule = _rule(config, checkpoint)
    return LoadedRun(folder, config, manifest, dataset, model, path.name, rule, stored.step)


def checkpoint_of(run_dir: Path, checkpoint: str) -> CheckpointUsed:
    """What ``load_run`` would load now, without the model.

    Raises:
        ArtifactError: the checkpoint is not there or cannot be read.
    """
    path = checkpoint_path(run_dir, checkpoint)
    rule = _rule(load_config(run_dir), checkpoint)
    return CheckpointUsed(path.name, rule, open_checkpoint(path).step)


def _rule(config: RunConfig, checkpoint: str) -> str:
    """What chose a checkpoint."""
    rules = {"best": system_named(config.system).monitor.rule, "last": "end of training"}
    return rules.get(checkpoint, "given by path")


def checkpoint_path(folder: Path, checkpoint: str) -> Path:
    """Where a checkpoint of a run lies: ``best``, ``last``, or a path."""
    if checkpoint in NAMED_CHECKPOINTS:
        return folder / FOLDER / NAMED_CHECKPOINTS[checkpoint]
    return Path(checkpoint)


def load_config(run_dir: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ArtifactError: the folder is no run folder.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{run_dir} is not a run folder (no {CONFIG_FILE} in it); "
            "`recsys train run_dir=…` makes one."
        )
    return load(path, system_of_file(path).config)


def open_dataset(
    folder: Path, config: RunConfig, dataset_folder: str | None = None
) -> PreparedDataset:
    """The prepared data set of a run, which may have grown; refused if it was prepared anew.

    Args:
        folder: the run folder.
        config: of the run.
        dataset_folder: where the data set lies; None for where it lay at the training.

    Raises:
        ArtifactError: it is not there, or another data set is.
        DataError: ``dataset_folder`` is no prepared data set.
    """
    if dataset_folder is None and not config.data.out_folder.exists():
        raise ArtifactError(
            f"{folder} was trained on the prepared data set {config.data.out_folder}, which is not "
            "there; if it was moved, say where it lies now: dataset=<its folder>."
        )
    dataset = PreparedDataset.open(dataset_folder or config.data.out_folder)
    trained_on = DatasetManifest.load(folder)
    grown_from = dataset.manifest.preparation.get(GROWN_FROM, [])
    if trained_on.fingerprint not in (dataset.manifest.fingerprint, *grown_from):
        raise ArtifactError(
            f"{folder} was trained on a data set with fingerprint {trained_on.fingerprint}, but "
            f"{dataset.path} now has {dataset.manifest.fingerprint}; prepare the data set as "
            f"{folder / CONFIG_FILE} says, or train again."
        )
    return dataset
