"""`recsys checkpoint reshard`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.runs.checkpoint_tools import ReshardConfig, reshard_checkpoint


def configure(overrides: Sequence[str]) -> ReshardConfig:
    """Compose conf/checkpoint_reshard.yaml."""
    return compose("checkpoint_reshard", ReshardConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write it and say where it is."""
    message_console().print(f"Checkpoint: {reshard_checkpoint(configure(overrides))}")
