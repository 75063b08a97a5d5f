"""Train, evaluate, export and serve long-history recommenders, from one CPU to many GPU nodes.

What a notebook needs (docs/python.md); each name is imported when it is first used:

- :func:`infer` a log's description, :func:`prepare` it, :func:`append` new days,
  :func:`open_dataset` what was prepared, and :func:`train` on it;
- :func:`open_run`: configuration, metrics, user embeddings, scores and recommendations of a run;
- :func:`open_artifact` what `recsys export` wrote, :func:`open_store` what `recsys publish` wrote.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recsys.core.version import VERSION

if TYPE_CHECKING:
    from recsys.api.artifact import open_artifact
    from recsys.api.dataset import append, infer, open_dataset, prepare
    from recsys.api.run import Run, open_run
    from recsys.api.store import open_store
    from recsys.api.train import train

__all__ = [
    "Run",
    "__version__",
    "append",
    "infer",
    "open_artifact",
    "open_dataset",
    "open_run",
    "open_store",
    "prepare",
    "train",
]

__version__ = VERSION

_MODULES = {
    "append": "recsys.api.dataset",
    "open_artifact": "recsys.api.artifact",
    "infer": "recsys.api.dataset",
    "open_dataset": "recsys.api.dataset",
    "prepare": "recsys.api.dataset",
    "Run": "recsys.api.run",
    "open_run": "recsys.api.run",
    "open_store": "recsys.api.store",
    "train": "recsys.api.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
