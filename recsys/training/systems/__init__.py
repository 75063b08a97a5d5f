"""The systems that `recsys train` can train, by name."""

from __future__ import annotations

import importlib
from typing import Any

from recsys.errors import ConfigError
from recsys.training.systems.base import Assembly, Measured, Monitor, System

__all__ = ["DEFAULT_SYSTEM", "SYSTEMS", "Assembly", "Measured", "Monitor", "System", "system_named"]

#: Module and class of each system; imported when it is used.
SYSTEMS: dict[str, tuple[str, str]] = {
    "dv365": ("recsys.training.systems.dv365", "DV365System"),
    "post_tower": ("recsys.training.systems.post_tower", "PostTowerSystem"),
    "nxtpost": ("recsys.training.systems.nxtpost", "NxtPostSystem"),
    "wide_and_deep": ("recsys.training.systems.wide_and_deep", "WideAndDeepSystem"),
    "sequence": ("recsys.training.systems.sequence", "SequenceSystem"),
}

#: Trained where neither the command nor the experiment names another.
DEFAULT_SYSTEM = "dv365"


def system_named(name: str) -> System[Any]:
    """The system ``name``.

    Raises:
        ConfigError: there is no such system.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"system={name} is not known; the systems are {', '.join(SYSTEMS)}.")
    module, system = SYSTEMS[name]
    built: System[Any] = getattr(importlib.import_module(module), system)()
    return built
