"""`recsys service rollback`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.service.release import RollbackConfig, roll_back


def run(overrides: Sequence[str]) -> None:
    """Point to a former generation."""
    config = compose("service_rollback", RollbackConfig, overrides)
    output_console().print(f"{config.state} serves generation {roll_back(config)}")
