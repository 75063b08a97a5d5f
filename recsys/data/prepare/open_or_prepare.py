"""The data set a run is trained on: prepared now if it is not there."""

from __future__ import annotations

from dataclasses import replace

from recsys.core.console import message_console
from recsys.core.location import is_url
from recsys.core.mirror import local_folder
from recsys.data.contract.actions import unknown_text
from recsys.data.contract.manifest import DATASET_FILE
from recsys.data.prepare.preparation import rejected_folder
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources import SOURCES
from recsys.data.stores.check import open_checked
from recsys.data.stores.dataset import PreparedDataset, is_read_at_once

#: Where the settings of a data set stand in the command of a run.
_PLACE = "data."


def open_or_prepare(config: PrepareConfig) -> tuple[PreparedDataset, PrepareConfig]:
    """Open the prepared data set, preparing it first where it is absent.

    Without a path, of a source whose files have no usual place, it is opened as it was prepared.

    Returns:
        The data set, and ``config`` with the absolute path of its folder, so that a run folder
        finds it from wherever it is read.

    Raises:
        DataError: the owner's files are missing, or the folder holds a data set that was
            prepared in another way or from other files, or a damaged one.
    """
    folder = config.out_folder
    console = message_console()
    absent = not (folder / DATASET_FILE).is_file()
    if not absent and config.path is None and SOURCES[config.source].default_path is None:
        return open_checked(folder), replace(config, out=str(folder.resolve()))
    if absent:
        console.print(f"Preparing {config.title} into {folder} (once).")
    if is_url(folder) and not absent:  # its copy is compared with what is described
        copy = replace(config, out=str(local_folder(folder, is_read_at_once)), overwrite=False)
        return open_or_prepare(copy)[0], config
    manifest = prepare(config, place=_PLACE)
    if absent and manifest.rejected:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.rejected.items())
        console.print(f"Rows left out ({reasons}); they are in {folder / rejected_folder(None)}.")
        if manifest.unknown_actions:
            console.print(unknown_text(manifest.unknown_actions))
    return open_checked(folder), replace(config, out=str(folder.resolve()))
