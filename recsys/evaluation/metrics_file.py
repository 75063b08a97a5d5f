"""metrics.json of a run folder: every number with its protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from recsys.core.errors import ArtifactError
from recsys.core.folders import locked_folder
from recsys.core.json_files import read_json, write_json

METRICS_FILE = "metrics.json"

_KIND = "list of metrics"

#: Per metric ``value``, ``protocol`` and, where there is one, the interval's ``low`` and ``high``.
Metrics = dict[str, dict[str, Any]]


def read_metrics_file(run_dir: Path) -> Metrics:
    """The metrics of a run so far; empty where none were written yet.

    Raises:
        ArtifactError: the file cannot be read.
    """
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return {}
    mend = "delete it and run `recsys evaluate` again."
    return read_json(path, _KIND, ArtifactError, mend)


def replace_metrics(run_dir: Path, prefix: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace all metrics whose name begins with ``prefix`` by ``metrics``, in one atomic step.

    A value that is not defined (an NE without positives) is written as null. Metrics that another
    command writes at this moment are kept too.
    """
    with locked_folder(run_dir / METRICS_FILE):
        kept = {k: v for k, v in read_metrics_file(run_dir).items() if not k.startswith(prefix)}
        content = kept | {name: without_nan(metric) for name, metric in metrics.items()}
        write_json(run_dir / METRICS_FILE, _KIND, content)


def is_defined(value: float | None) -> TypeGuard[float]:
    """Whether a number was measured and is finite; others are shown as undefined, never ranked."""
    return value is not None and math.isfinite(value)


def without_nan(value: Any) -> Any:
    """What JSON can hold: numbers that are not defined are None, however deep they lie."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not is_defined(value) else value
