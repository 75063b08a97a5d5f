"""`recsys service swap`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.service.config import GenerationConfig
from recsys.service.release import swap


def run(overrides: Sequence[str]) -> None:
    """Make a generation, and point to it."""
    config = compose("service_swap", GenerationConfig, overrides)
    output_console().print(f"{config.state} serves generation {swap(config)}")
