"""`recsys service swap`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.service.config import GenerationConfig
from recsys.service.release import swap


def configure(overrides: Sequence[str]) -> GenerationConfig:
    """Compose conf/service_swap.yaml."""
    return compose("service_swap", GenerationConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Make a generation, and point to it."""
    config = configure(overrides)
    output_console().print(f"{config.state} serves generation {swap(config)}")
