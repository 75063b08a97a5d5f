"""`recsys checkpoint unshard`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.runs.checkpoint_tools import UnshardConfig, unshard_checkpoint


def configure(overrides: Sequence[str]) -> UnshardConfig:
    """Compose conf/checkpoint_unshard.yaml."""
    return compose("checkpoint_unshard", UnshardConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Write it and say where it is."""
    message_console().print(f"Checkpoint: {unshard_checkpoint(configure(overrides))}")
