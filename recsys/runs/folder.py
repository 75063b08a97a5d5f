"""The folder of a run: made anew, gone on with, and held by one training at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from recsys.core.composition import save
from recsys.core.durable import PARTIAL, replace_file
from recsys.core.environment import ENVIRONMENT_FILE, write_environment
from recsys.core.errors import ConfigError, RecsysError
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.schema import Split
from recsys.distributed.checkpoint.load import open_checkpoint
from recsys.evaluation.predictions import predictions_path
from recsys.runs.checkpoints import CHECKPOINTS, LAST
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE, DIVERGED_FILE, LOCK_FILE, LOGS, WANDB_FILE
from recsys.runs.load import load_config
from recsys.runs.metrics_log import MetricsCsv
from recsys.runs.whole_checkpoints import another_named, last_checkpoint

RUNS = Path("runs")
#: What a run that goes on cannot change.
_KEPT = ("slices", "optim")
#: What may be in the folder of a run that has not begun, or died while it did.
_BEFORE_A_RUN = (LOCK_FILE, LOGS, DATASET_FILE, ENVIRONMENT_FILE)


def run_folder(config: RunConfig) -> Path:
    """Where a run lies.

    Raises:
        ConfigError: the run to go on with is not named or was another one, or a new one's folder
            holds something else.
        ArtifactError: there is no such run to go on with.
    """
    if config.resume:
        if config.run_dir is None:
            raise ConfigError("resume=true needs run_dir=…, the folder of the run to go on with.")
        _refuse_changes(Path(config.run_dir), config)
    run_dir = Path(config.run_dir) if config.run_dir else RUNS / config.name / time_stamp()
    if not config.resume and run_dir.is_dir() and not (run_dir / LOCK_FILE).exists():
        _refuse_taken(run_dir)  # before a lock is left in it; a run's own folder has one
    return run_dir


def time_stamp() -> str:
    """The time as the name of a folder."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _refuse_changes(run_dir: Path, config: RunConfig) -> None:
    """Check that a run goes on with what its checkpoint has the state of.

    Lightning would take the optimiser's settings from the checkpoint, whatever is given.
    """
    kept = asdict(load_config(run_dir, type(config)))  # refuses what is no run folder
    given = asdict(config)
    changed = [key for part in _KEPT for key in _changed(part, kept, given)]
    if changed:
        raise ConfigError(
            f"A run that goes on keeps its {' and '.join(_KEPT)}, but {run_dir / CONFIG_FILE} has "
            f"another {' and another '.join(changed)}; leave that out, or begin a new run with the "
            f"weights of this one by warm_start.checkpoint={run_dir / CHECKPOINTS / LAST}."
        )


def _changed(key: str, old: Any, new: Any) -> list[str]:
    """Keys at or below this one whose values differ."""
    name = key.rpartition(".")[2]
    old, new = old.get(name), new.get(name)
    if isinstance(old, dict) and isinstance(new, dict):
        return [one for child in old for one in _changed(f"{key}.{child}", old, new)]
    return [] if old == new else [key]


@contextmanager
def held(run_dir: Path, doing: str = "is training in", setting: str = "run_dir") -> Iterator[None]:
    """Make the folder where it is absent, and keep other trainings out until the block ends.

    Raises:
        ConfigError: another process is training there, or the folder cannot be written to.
    """
    with _lock_file(run_dir) as lock:
        try:
            # Not flock: the loader's workers would inherit that lock and survive a kill with it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"Another process {doing} {run_dir}; wait until it has finished, or give another "
                f"{setting}."
            ) from error
        yield


def _lock_file(run_dir: Path) -> TextIO:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        return (run_dir / LOCK_FILE).open("w")
    except OSError as error:
        raise ConfigError(
            f"The run folder {run_dir} cannot be written to ({error.strerror}); let it be written "
            "to, or copy it (`cp -a`) to where it can and give that run_dir."
        ) from error


def begin(run_dir: Path, config: RunConfig, manifest: DatasetManifest) -> None:
    """Write what a new run depends on into its folder; with its configuration it has begun.

    Args:
        run_dir: the folder on the disk.
        config: of the run; its ``run_dir`` is what the user knows the folder by.
        manifest: of its data set.

    Raises:
        ConfigError: the folder is not empty.
    """
    _refuse_taken(run_dir)
    manifest.save(run_dir)
    write_environment(run_dir)
    save(config, run_dir / CONFIG_FILE)


@contextmanager
def begun_unless_refused(run_dir: Path) -> Iterator[None]:
    """A run that is refused inside has not begun: the corrected command finds its folder free."""
    try:
        yield
    except RecsysError:
        (run_dir / CONFIG_FILE).unlink(missing_ok=True)
        raise


def _refuse_taken(run_dir: Path) -> None:
    names = [path.name for path in run_dir.iterdir()]
    if any(name not in _BEFORE_A_RUN and not name.endswith(PARTIAL) for name in names):
        raise ConfigError(
            f"The run folder {run_dir} is not empty; go on with that run by resume=true, or give "
            "another run_dir."
        )


def go_back_to_checkpoint(run_dir: Path) -> Path | None:
    """Forget what a run did after its last checkpoint, and return that if there is one.

    Raises:
        ArtifactError: ``last.ckpt`` leads nowhere, or to a damaged checkpoint.
    """
    last = last_checkpoint(run_dir / CHECKPOINTS)
    with another_named(run_dir):
        step = 0 if last is None else open_checkpoint(last).step
    MetricsCsv(run_dir).drop_after(step)
    (run_dir / DIVERGED_FILE).unlink(missing_ok=True)
    for split in Split:  # of a checkpoint that may change
        predictions_path(run_dir, split).unlink(missing_ok=True)
    return last


def wandb_run_id(run_dir: Path) -> str:
    """The run's id at Weights & Biases, kept so that a resumed run goes on under it.

    An agent of a sweep has given the run its id already.
    """
    path = run_dir / WANDB_FILE
    if not path.exists():
        run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        replace_file(path, run_id.encode())
    return path.read_text()
