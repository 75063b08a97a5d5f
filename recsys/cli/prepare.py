"""`recsys data prepare`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from recsys.data.prepare import PrepareConfig, prepare
from recsys.training.composition import compose


def configure(overrides: Sequence[str]) -> PrepareConfig:
    """Compose conf/prepare.yaml; ``data=<name>`` takes the settings of conf/data/<name>.yaml."""
    return compose("prepare", PrepareConfig, [_at_top_level(override) for override in overrides])


def run(overrides: Sequence[str]) -> None:
    """Prepare the data set and say what became of its rows."""
    config = configure(overrides)
    manifest = prepare(config)
    console = Console()
    counts = Table("what", "count", title=f"{manifest.name}: {config.out_folder}")
    for name, count in manifest.counts.items():
        counts.add_row(name, f"{count:,}")
    console.print(counts)
    if manifest.rejected:
        rejected = Table("rows that could not be used", "count")
        for reason, count in manifest.rejected.items():
            rejected.add_row(reason, f"{count:,}")
        console.print(rejected)


def _at_top_level(override: str) -> str:
    """The group ``data`` fills the top level here, where a run has it as ``data.…``."""
    return override.replace("data=", "data@_global_=", 1) if override[:5] == "data=" else override
