"""The systems that `recsys train` can train, by name."""

from __future__ import annotations

import importlib
from typing import Any

from recsys.core.errors import ConfigError
from recsys.systems.base import System

#: Module and class of each system; imported when it is used.
SYSTEMS: dict[str, str] = {
    "dv365": "recsys.systems.dv365.system:DV365System",
    "post_tower": "recsys.systems.post_tower.system:PostTowerSystem",
    "nxtpost": "recsys.systems.nxtpost.system:NxtPostSystem",
    "wide_and_deep": "recsys.systems.wide_and_deep.system:WideAndDeepSystem",
    "sequence": "recsys.systems.sequence.system:SequenceSystem",
    "two_tower": "recsys.systems.two_tower.system:TwoTowerSystem",
    "ranker": "recsys.systems.ranker.system:RankerSystem",
    "hsnn": "recsys.systems.hsnn.system:HsnnSystem",
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
    module, _, system = SYSTEMS[name].partition(":")
    built: System[Any] = getattr(importlib.import_module(module), system)()
    return built
