"""`recsys index rollback`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.index.snapshots import RollbackConfig, roll_back


def configure(overrides: Sequence[str]) -> RollbackConfig:
    """Compose conf/index_rollback.yaml."""
    return compose("index_rollback", RollbackConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Go back, and say to what."""
    config = configure(overrides)
    served = roll_back(config)
    message_console().print(
        f"Served: generation {served.number}, {served.items:,} items; in {config.index}."
    )
