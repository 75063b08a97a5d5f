"""A new run that starts from the weights of another one, and says what it has taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightning

from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.data.contract.generations import short_text
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.schema import Split
from recsys.runs.remote import local_checkpoint
from recsys.runs.warm_start import Taken, WarmStartConfig, take_weights


class WarmStart(lightning.Callback):
    """Takes the weights before the first step, each process those that it holds.

    Args:
        config: where they come from.
        run_dir: of the new run.
    """

    def __init__(self, config: WarmStartConfig, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take them, and say what was taken.

        Raises:
            ArtifactError: the checkpoint is not there or damaged.
            ConfigError: it does not fit the model as the configuration says.
        """
        checkpoint = local_checkpoint(str(self.config.checkpoint))
        config = replace(self.config, checkpoint=str(checkpoint))
        if is_earlier(checkpoint, self.run_dir):  # the new rows are of ids that have come since
            config = replace(config, grown=True)
        taken = take_weights(pl_module, config)
        if trainer.is_global_zero:
            lines = list(report(taken, str(self.config.checkpoint)))
            if ids_differ(checkpoint, self.run_dir):
                lines.append(
                    "  note: the checkpoint is of another data set, whose rows mean other ids; "
                    "ignore the tables of ids."
                )
            for line in lines:
                message_console().print(line)


def is_earlier(checkpoint: Path, run_dir: Path) -> bool:
    """Whether a checkpoint in a run folder is of an earlier generation of this run's data set."""
    folder = checkpoint.parent.parent
    if not (folder / DATASET_FILE).is_file():
        return False
    old, new = DatasetManifest.load(folder), DatasetManifest.load(run_dir)
    return old.fingerprint in new.lineage[:-1]


def refuse_later_days(checkpoint: Path, manifest: DatasetManifest) -> None:
    """Refuse weights that were trained on days which a run on this data set is to be chosen by.

    Args:
        checkpoint: where the weights come from.
        manifest: of the run's data set.

    Raises:
        ConfigError: the checkpoint lies in the folder of such a run.
    """
    folder = checkpoint.parent.parent
    if not (folder / DATASET_FILE).is_file():
        return  # nobody knows
    old = DatasetManifest.load(folder)
    if old.fingerprint not in manifest.lineage and manifest.fingerprint not in old.lineage:
        return  # another data set: its days say nothing of these
    seen, chosen_from = old.split_bounds[Split.FIT][1], manifest.split_bounds[Split.CHOOSE][0]
    if seen > chosen_from:
        raise ConfigError(
            f"warm_start.checkpoint={checkpoint} was trained on rows until {short_text(seen)}, but "
            f"this run is chosen by rows from {short_text(chosen_from)} on, and would be measured "
            "on what its weights have seen; take an earlier checkpoint, or append days first."
        )


def ids_differ(checkpoint: Path, run_dir: Path) -> bool:
    """Whether a checkpoint in a run folder is of a data set that this run's has not grown from."""
    folder = checkpoint.parent.parent
    if not (folder / DATASET_FILE).is_file():
        return False  # nobody knows
    old, new = DatasetManifest.load(folder), DatasetManifest.load(run_dir)
    return old.fingerprint not in new.lineage


def report(taken: Taken, checkpoint: str) -> Iterator[str]:
    """What was taken, in lines."""
    yield (
        f"Warm start from {checkpoint}: {len(taken.same) + len(taken.renamed)} weights taken, "
        f"{len(taken.renamed)} of them under another name and {len(taken.grown)} grown; "
        f"{len(taken.ignored)} ignored; state of {len(taken.states)} tables taken."
    )
    for new, old in taken.renamed.items():
        yield f"  renamed: {old} is {new}"
    for name, rows in taken.grown.items():
        yield f"  grown: {name}, {rows}"
    for name in taken.ignored:
        yield f"  ignored: {name}"
