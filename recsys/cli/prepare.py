"""`recsys data prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import message_console, output_console
from recsys.core.group_files import with_first_file
from recsys.core.mirror import local_folder
from recsys.data.contract.manifest import DATASET_FILE, DatasetManifest
from recsys.data.contract.moments import to_text
from recsys.data.prepare.describe import rejected_table
from recsys.data.prepare.preparation import rejected_folder
from recsys.data.prepare.prepare import PrepareConfig, prepare


def configure(overrides: Sequence[str]) -> PrepareConfig:
    """Compose conf/prepare.yaml; ``data=<name>`` takes the settings of conf/data/<name>.yaml.

    ``data=mine.yaml``, or ``mine.yaml`` alone, takes those of a description.
    """
    settings = with_first_file(overrides, "data")
    return compose("prepare", PrepareConfig, [at_top_level(override) for override in settings])


def run(overrides: Sequence[str]) -> None:
    """Prepare the data set and say what became of its rows."""
    config = configure(overrides)
    folder = config.out_folder
    is_there = (folder / DATASET_FILE).is_file()
    former = (
        DatasetManifest.load(local_folder(folder, lambda name: name == DATASET_FILE))
        if is_there
        else None
    )
    manifest = prepare(config)
    if former is not None and former.fingerprint == manifest.fingerprint:
        message_console().print(f"{folder} is prepared already; nothing was done.")
    console = output_console()
    console.print(_counts_table(manifest, folder))
    if manifest.rejected:
        rejected_to = str(folder / rejected_folder(None))
        console.print(rejected_table(manifest.rejected, rejected_to, manifest.unknown_actions))


def _counts_table(manifest: DatasetManifest, folder: Path) -> Table:
    """Users, items, events, requests and rows; `recsys data describe` shows the vocabularies."""
    table = Table("what", title=f"{manifest.name}: {folder}")
    table.add_column("count", justify="right")
    for name, count in manifest.counts.items():
        if not name.startswith(("fit_vocabulary_", "collisions_", "last_")):
            table.add_row(name.replace("_", " "), f"{count:,}")
    if manifest.has_times:
        table.add_row("last event", to_text(manifest.counts["last_timestamp"]))
    return table


def at_top_level(override: str) -> str:
    """The group ``data`` fills the top level here, where a run has it as ``data.…``."""
    return override.replace("data=", "data@_global_=", 1) if override[:5] == "data=" else override
