"""`recsys checkpoint reshard`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recsys.core.composition import compose
from recsys.runs.checkpoint_tools import ReshardConfig, reshard_checkpoint


def configure(overrides: Sequence[str]) -> ReshardConfig:
    """Compose conf/checkpoint_reshard.yaml."""
    return compose("checkpoint_reshard", ReshardConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write it and say where it is."""
    Console(stderr=True).print(f"Checkpoint: {reshard_checkpoint(configure(overrides))}")
