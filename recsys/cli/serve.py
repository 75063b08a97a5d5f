"""`recsys serve`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.service.config import ServeConfig
from recsys.service.server import serve


def configure(overrides: Sequence[str]) -> ServeConfig:
    """Compose conf/serve.yaml."""
    return compose("serve", ServeConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Serve until the process is told to end."""
    serve(configure(overrides), message_console().print)
