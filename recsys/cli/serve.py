"""`recsys serve`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from recsys.core.composition import compose
from recsys.core.console import message_console
from recsys.core.errors import InstallationError
from recsys.core.installation import extra_command
from recsys.service.config import ServeConfig


def configure(overrides: Sequence[str]) -> ServeConfig:
    """Compose conf/serve.yaml."""
    return compose("serve", ServeConfig, overrides)


def run(overrides: Sequence[str]) -> None:
    """Serve until the process is told to end.

    Raises:
        InstallationError: what only a service needs is not installed.
    """
    config = configure(overrides)
    for package in ("fastapi", "msgspec", "prometheus_client", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise InstallationError(
                f"recsys serve needs {package}, which is not installed: {extra_command('serve')} "
                "installs it."
            )
    from recsys.service.server import serve

    serve(config, message_console().print)
