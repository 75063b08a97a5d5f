"""`recsys service point`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.service.release import PointConfig, go_over


def run(overrides: Sequence[str]) -> None:
    """Go over to an operating point."""
    config = compose("service_point", PointConfig, overrides)
    go_over(config)
    output_console().print(f"{config.state} serves at {config.point or 'no operating point'}")
