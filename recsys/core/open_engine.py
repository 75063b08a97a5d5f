"""Opens the engine that is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from recsys.core.engines import PROCESS, THIS_PROCESS, Engine, EngineConfig


def open_engine(config: EngineConfig, *folders: Path) -> AbstractContextManager[Engine]:
    """The engine, while a work is done.

    Args:
        config: which, and of what size.
        folders: existing ones that all workers must see: what they read and make lies there.

    Raises:
        InstallationError: Ray is not installed.
        ConfigError: the cluster cannot do the work; the sentence says why.
    """
    if config.name == PROCESS:
        return nullcontext(THIS_PROCESS)
    from recsys.core.ray_engine import ray_engine  # needs Ray, an extra of the installation

    return ray_engine(config, *folders)
