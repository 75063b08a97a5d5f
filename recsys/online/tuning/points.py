"""Operating points of a tuning: named trials, as a service that runs can take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from recsys.core.durable import replace_file
from recsys.online.tuning.config import CACHE, TuningConfig
from recsys.online.tuning.trials import Trial, Tuning, choose

#: The file of them, for ``read_points`` of the cache.
POINTS = "operating_points.yaml"


def operating_points(found: Tuning, tuning: TuningConfig) -> dict[str, Trial]:
    """By name, of the funnel as it is and the trials within a point's limits the highest goal.

    A point whose limits nothing meets is left out.
    """
    points = {}
    for name, limits in tuning.points.items():
        asked = replace(tuning, constraints=limits)
        best = choose([found.now, *found.trials], asked)
        if best is not None and best.is_feasible(asked):
            points[name] = best
    return points


def write_points(path: Path, points: Mapping[str, Mapping[str, float]]) -> None:
    """Write a file of operating points.

    Args:
        path: of the file.
        points: by name, numbers by their place in the funnel, all of its cache.
    """
    content = OmegaConf.create({"points": {name: {} for name in points}})
    for name, parameters in points.items():
        for place, value in parameters.items():
            key = f"points.{name}.{place.removeprefix(CACHE)}"
            OmegaConf.update(content, key, value)
    replace_file(path, OmegaConf.to_yaml(content).encode())
