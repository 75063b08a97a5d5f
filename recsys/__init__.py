"""Train, evaluate, export and serve long-history recommenders, from one CPU to many GPU nodes.

What a notebook needs (docs/python.md); each name is imported when it is first used:

- :func:`prepare` a log, :func:`append` new days to it, :func:`open_dataset` what was prepared;
- :func:`open_run`: configuration, metrics, user embeddings, scores and recommendations of a run;
- :func:`open_artifact` what `recsys export` wrote, :func:`open_store` what `recsys publish` wrote.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recsys.core.version import VERSION

if TYPE_CHECKING:
    from recsys.api.artifact import open_artifact
    from recsys.api.dataset import append, open_dataset, prepare
    from recsys.api.run import Run, open_run
    from recsys.api.store import open_store

__all__ = [
    "Run",
    "__version__",
    "append",
    "open_artifact",
    "open_dataset",
    "open_run",
    "open_store",
    "prepare",
]

__version__ = VERSION

_MODULES = {
    "append": "recsys.api.dataset",
    "open_artifact": "recsys.api.artifact",
    "open_dataset": "recsys.api.dataset",
    "prepare": "recsys.api.dataset",
    "Run": "recsys.api.run",
    "open_run": "recsys.api.run",
    "open_store": "recsys.api.store",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
