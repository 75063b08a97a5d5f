"""`recsys checkpoint inspect`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.runs.checkpoint_tools import InspectConfig, Inspected, TensorLine, inspect
from recsys.runs.sharding_plan import WIDTH


def configure(overrides: Sequence[str]) -> InspectConfig:
    """Compose conf/checkpoint_inspect.yaml."""
    return compose("checkpoint_inspect", InspectConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Print what the checkpoint holds."""
    inspected = inspect(configure(overrides))
    console = output_console(WIDTH)
    console.print(_table(inspected.lines))
    console.print(_state(inspected))


def _table(lines: Sequence[TensorLine]) -> Table:
    table = Table()
    for heading in ("tensor", "kind", "dtype"):
        table.add_column(heading, overflow="fold")
    for heading in ("shape", "MiB", "shards", "files"):
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(
            line.name,
            line.kind,
            line.dtype,
            " x ".join(f"{count:,}" for count in line.shape),
            f"{line.bytes / 2**20:,.2f}",
            f"{line.shards:,}",
            f"{line.files:,}",
        )
    return table


def _state(inspected: Inspected) -> str:
    stored = inspected.stored
    total = sum(line.bytes for line in inspected.lines)
    form = "a folder" if stored.path.is_dir() else "one file"
    checked = "every checksum fits" if inspected.verified else "checksums were not compared"
    return (
        f"{stored.path}: {form} of step {stored.step}, written by {stored.world_size} process(es), "
        f"{total / 2**20:,.1f} MiB of tensors. It is whole; {checked}."
    )
