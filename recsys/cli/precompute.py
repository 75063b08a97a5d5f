"""`recsys precompute`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import output_console
from recsys.service.precompute import PrecomputeConfig, precompute


def configure(overrides: Sequence[str]) -> PrecomputeConfig:
    """Compose conf/precompute.yaml."""
    return compose("precompute", PrecomputeConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Make the lists, and say how many."""
    config = configure(overrides)
    output_console().print(f"{precompute(config):,} lists are in {config.state}")
