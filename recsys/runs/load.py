"""From a run folder back to its configuration, data set and trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning

from recsys.core.composition import load
from recsys.core.errors import ArtifactError
from recsys.data.contract.generations import measured_text, short_text
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Split
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.evaluation.identity import CheckpointUsed, RunIdentity
from recsys.evaluation.monitor import Monitor
from recsys.nn.tables.first_rows import rows_come_later
from recsys.runs.checkpoints import CHECKPOINTS, NAMED_CHECKPOINTS
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.runs.system import TrainableSystem

Config = TypeVar("Config", bound=RunConfig)
Model = TypeVar("Model", bound=lightning.LightningModule)


@dataclass(frozen=True)
class LoadedRun(Generic[Config, Model]):
    """A trained model with everything it was trained on.

    Attributes:
        folder: the run folder.
        config: the run's resolved configuration.
        manifest: of the data set as trained on.
        dataset: the prepared data set, as the model knows it.
        model: the trained model, in evaluation mode.
        checkpoint: the one the weights come from.
    """

    folder: Path
    config: Config
    manifest: DatasetManifest
    dataset: PreparedDataset
    model: Model
    checkpoint: CheckpointUsed

    @property
    def identity(self) -> RunIdentity:
        """What evaluation says of it."""
        config = self.config
        return RunIdentity(
            self.folder,
            config.system,
            measured_text(self.manifest, self.dataset.manifest),
            self.dataset.manifest.fingerprint,
            config.seed,
            self.checkpoint,
        )

    @property
    def training(self) -> dict[str, Any]:
        """What the manifest of an exported tower says of it."""
        return {
            "run": str(self.folder),
            "checkpoint": self.checkpoint.name,
            "step": self.checkpoint.step,
            "chosen_by": self.checkpoint.chosen_by,
            "seed": self.config.seed,
        }


def load_run(
    system: TrainableSystem[Any],
    run_dir: Path | str,
    checkpoint: str = "best",
    dataset_folder: str | None = None,
    measured: Split | None = None,
) -> LoadedRun[Any, Any]:
    """Load a run.

    Args:
        system: what was trained.
        run_dir: the run folder.
        checkpoint: ``best`` (by the choose split), ``last``, or a path.
        dataset_folder: the prepared data set, where it was moved since the training.
        measured: a split that the run is to be measured on. Of a data set that has grown since the
            training, choose and report are then those of now; otherwise those of the training.

    Raises:
        ArtifactError: the folder is no run, a file is damaged, or the prepared data set is not
            the one the run was trained on, or the run has seen rows of the split that is measured.
    """
    folder = Path(run_dir)
    config = load_config(folder, system.config)
    dataset = open_dataset(folder, config, dataset_folder)
    manifest = DatasetManifest.load(folder)  # as trained on; the data set may have grown since
    if measured is not None:
        _refuse_seen(folder, manifest, dataset.newest, measured)
        trained = {Split.FIT.value: manifest.split_bounds[Split.FIT]}
        dataset = dataset.as_known(manifest, dataset.newest.split_bounds | trained)
    with rows_come_later():
        model = system.restore(config, dataset, manifest)
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
    used = CheckpointUsed(path.name, _rule(system.monitor_of(config), checkpoint), stored.step)
    return LoadedRun(folder, config, manifest, dataset, model, used)


def checkpoint_of(system: TrainableSystem[Any], run_dir: Path, checkpoint: str) -> CheckpointUsed:
    """What ``load_run`` would load now, without the model.

    Raises:
        ArtifactError: the checkpoint is not there or cannot be read.
    """
    path = checkpoint_path(run_dir, checkpoint)
    rule = _rule(system.monitor_of(load_config(run_dir, system.config)), checkpoint)
    return CheckpointUsed(path.name, rule, open_checkpoint(path).step)


def _rule(monitor: Monitor, checkpoint: str) -> str:
    """What chose a checkpoint."""
    rules = {"best": monitor.rule, "last": "end of training"}
    return rules.get(checkpoint, "given by path")


def checkpoint_path(folder: Path, checkpoint: str) -> Path:
    """Where a checkpoint of a run lies: ``best``, ``last``, or a path."""
    if checkpoint in NAMED_CHECKPOINTS:
        return folder / CHECKPOINTS / NAMED_CHECKPOINTS[checkpoint]
    return Path(checkpoint)


def load_config(run_dir: Path, schema: type[Config]) -> Config:
    """The resolved configuration of a run.

    Raises:
        ArtifactError: the folder is no run folder.
    """
    check_run_folder(run_dir)
    return load(run_dir / CONFIG_FILE, schema)


def check_run_folder(run_dir: Path) -> None:
    """Refuse a folder that holds no run.

    Raises:
        ArtifactError: it has no configuration.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise ArtifactError(
            f"{run_dir} is not a run folder (no {CONFIG_FILE} in it); "
            "`recsys train run_dir=…` makes one."
        )


def open_dataset(
    folder: Path, config: RunConfig, dataset_folder: str | None = None
) -> PreparedDataset:
    """The prepared data set of a run, as it was known then; refused if it was prepared anew.

    Where it has grown since, splits and known ids are those of the training; what has come later
    lies in no split.

    Args:
        folder: the run folder.
        config: of the run.
        dataset_folder: where the data set lies; None for where it lay at the training.

    Raises:
        ArtifactError: it is not there, or another data set is.
        DataError: ``dataset_folder`` is no prepared data set, or a file of it is damaged.
    """
    if dataset_folder is None and not config.data.out_folder.exists():
        raise ArtifactError(
            f"{folder} was trained on the prepared data set {config.data.out_folder}, which is not "
            "there; if it was moved, say where it lies now: dataset=<its folder>."
        )
    dataset = open_checked(dataset_folder or config.data.out_folder)
    trained_on = DatasetManifest.load(folder)
    if trained_on.fingerprint not in dataset.manifest.lineage:
        raise ArtifactError(
            f"{folder} was trained on a data set with fingerprint {trained_on.fingerprint}, but "
            f"{dataset.path} now has {dataset.manifest.fingerprint}; prepare the data set as "
            f"{folder / CONFIG_FILE} says, or train again."
        )
    return dataset.as_known(trained_on)


def _refuse_seen(
    folder: Path, trained_on: DatasetManifest, newest: DatasetManifest, split: Split
) -> None:
    """Refuse to measure a run on rows that it was trained on or, of report, chosen by."""
    begin = newest.split_bounds[split][0]
    last_seen = Split.FIT if split is Split.CHOOSE else Split.CHOOSE
    seen = trained_on.split_bounds[last_seen][1]
    if begin < seen:
        raise ArtifactError(
            f"{folder} has seen rows until {short_text(seen)}, but the {split} split of "
            f"{newest.name} now begins at {short_text(begin)}: a run is measured on what it has "
            "not seen; train again on the data set as it is."
        )


def check_comparable(run_dir: Path, manifest: DatasetManifest) -> None:
    """Refuse a run that was trained on another data set than ``manifest`` describes, or on fewer
    of its tasks.

    Generations of one data set are no others: both runs are measured on the rows of now.

    Raises:
        ArtifactError: it was, or the folder is no run folder.
    """
    check_run_folder(run_dir)
    trained_on = DatasetManifest.load(run_dir)
    related = trained_on.fingerprint in manifest.lineage, manifest.fingerprint in trained_on.lineage
    if not any(related):
        raise ArtifactError(
            f"{run_dir} was trained on another data set ({trained_on.name}, fingerprint "
            f"{trained_on.fingerprint}) than this run ({manifest.name}, {manifest.fingerprint}); "
            "two runs are compared on the same rows only."
        )
    predicted = {task.name for task in trained_on.tasks}
    if missing := [task.name for task in manifest.tasks if task.name not in predicted]:
        raise ArtifactError(
            f"{run_dir} predicts {', '.join(sorted(predicted))}, and not {', '.join(missing)} as "
            "this run does; two runs are compared on the tasks of the first, so name them the "
            "other way round, or compare with a run of all these tasks."
        )
