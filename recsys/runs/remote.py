"""Runs whose folder lies at a URL while they are trained, and checkpoints at URLs to begin from.

A training writes into a folder on the disk, as ever; when a checkpoint is whole, the folder is
uploaded, whole or not at all (:mod:`recsys.core.mirror`). So what lies at the URL is always a run
that can be gone on with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from recsys.core.errors import ConfigError, PreemptedError, RecsysError, TrainingError
from recsys.core.folder_list import read_list
from recsys.core.location import RemotePath, located
from recsys.core.mirror import Mirror, local_folder, mirror_of
from recsys.data.contract.manifest import DATASET_FILE
from recsys.distributed.processes import started_by_a_launcher
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE


@contextmanager
def uploaded_run(config: RunConfig) -> Iterator[tuple[RunConfig, Mirror | None]]:
    """A run's configuration with its folder on the disk, and what uploads that to its URL.

    Raises:
        ConfigError: a run lies there already, or launched processes would not see one folder.
        RecsysError: what the block raises, which speaks of the URL then.
    """
    place = None if config.run_dir is None else located(config.run_dir)
    if not isinstance(place, RemotePath):
        yield (config if place is None else replace(config, run_dir=str(place))), None
        return
    if config.num_processes > 1 and started_by_a_launcher():
        raise ConfigError(
            f"run_dir={place}: processes that a launcher has started write one run folder on a "
            "file system that all of them see; give a path there, and copy the run when it is "
            "done."
        )
    listed = read_list(place)
    if not config.resume and listed is not None and listed.whole:
        raise ConfigError(
            f"The run folder {place} is not empty; go on with that run by resume=true, or give "
            "another run_dir."
        )
    with mirror_of(place) as mirror:
        try:
            yield replace(config, run_dir=str(mirror.folder)), mirror
        except RecsysError as error:
            if isinstance(error, PreemptedError | TrainingError):
                with suppress(RecsysError):  # what the checkpoint before it does not say
                    mirror.upload()
            error.args = (str(error).replace(str(mirror.folder), str(place)),)
            raise


def local_config(run_dir: str) -> Path:
    """The configuration of a run, copied where it lies at a URL."""
    return local_folder(run_dir, lambda name: name == CONFIG_FILE) / CONFIG_FILE


def local_checkpoint(checkpoint: str) -> Path:
    """A checkpoint on the disk; of one at a URL a copy, and what its run was trained on.

    Raises:
        DataError: it is not there, or the store says no.
    """
    path = located(checkpoint)
    if not isinstance(path, RemotePath):
        return path
    of_run = path.parent.name == CHECKPOINTS
    root = path.parent.parent if of_run else path.parent
    listed = read_list(root)
    name = path.relative_to(root).as_posix()
    linked = listed.files[name].link if listed is not None and name in listed.files else None
    names = {name, *([] if linked is None else [str(Path(name).with_name(linked))])}

    def is_wanted(one: str) -> bool:
        return one == DATASET_FILE or any(one == n or one.startswith(f"{n}/") for n in names)

    return local_folder(root, is_wanted) / name
