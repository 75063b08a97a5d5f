"""`recsys index snapshot`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.index.snapshots import SnapshotConfig, make_snapshot


def configure(overrides: Sequence[str]) -> SnapshotConfig:
    """Compose conf/index_snapshot.yaml."""
    return compose("index_snapshot", SnapshotConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Make the snapshot and say what is served."""
    config = configure(overrides)
    made = make_snapshot(config)
    console = message_console()
    if not made.is_new:
        console.print(f"The index is what generation {made.number} has; that stays served.")
    for number in made.removed:
        console.print(f"Generation removed: {number}.")
    console.print(f"Served: generation {made.number}, {made.items:,} items; in {config.out}.")
