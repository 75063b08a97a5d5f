"""Generations are made and served, and served again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import MISSING

from recsys.core.bounds import Count, Settings
from recsys.core.errors import ConfigError
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.stores.live.dataset import LiveDataset
from recsys.service.config import GenerationConfig, ServeConfig
from recsys.service.generations import Generation, ServiceState
from recsys.service.served import Served
from recsys.serving.funnel.cache.config import CacheConfig, read_points
from recsys.serving.funnel.config import ModelConfig
from recsys.serving.funnel.ledger import Ledger
from recsys.serving.funnel.live_knowledge import KnowledgeConfig


@dataclass(frozen=True)
class RollbackConfig(Settings):
    """Which generation to serve again.

    Attributes:
        state: folder of the service.
        generation: its number; None for the one before the one that is served.
    """

    state: str = MISSING
    generation: Count | None = None


@dataclass(frozen=True)
class PointConfig(Settings):
    """Which operating point to go over to.

    Attributes:
        state: folder of the service.
        point: its name; None for the funnel as it is declared.
    """

    state: str = MISSING
    point: str | None = None


def swap(config: GenerationConfig) -> int:
    """Make a generation of a funnel or a data set, or both, and serve it; returns its number.

    What is not given is that of the generation that is served. One like that makes no other.

    Raises:
        ConfigError: something is not given though nothing is served yet, or the funnel cannot be.
        DataError: the data set cannot be read.
    """
    state = ServiceState(Path(config.state))
    current = None if state.is_new else state.current()
    wanted = _wanted(config, current)
    if current is not None and replace(current, number=0) == wanted:
        _checked(state, wanted)
        return current.number
    served = _checked(state, wanted)
    added = state.add(wanted)
    Ledger(state.ledger(added.number), served.described).close()
    state.serve(added.number)
    return added.number


def roll_back(config: RollbackConfig) -> int:
    """Serve a generation again; returns its number.

    Raises:
        RecsysError: there is none, or it cannot be served any more; what is served stays.
    """
    state = ServiceState(Path(config.state))
    number = state.before(config.generation)
    _checked(state, state.read(number))
    state.serve(number)
    return number


def go_over(config: PointConfig) -> None:
    """Ask a service for an operating point.

    Raises:
        RecsysError: its generation has none of that name, or nothing is served.
    """
    state = ServiceState(Path(config.state))
    state.go_over(state.current().known_point(config.point))


def _wanted(config: GenerationConfig, current: Generation | None) -> Generation:
    funnel = config.funnel or (None if current is None else current.funnel)
    dataset = None if current is None else current.dataset
    if config.dataset is not None:
        dataset = Path(config.dataset).resolve()
    if funnel is None or dataset is None:
        raise ConfigError(
            f"{config.state} has served nothing yet; give funnel=… and dataset=… as well."
        )
    fingerprint = DatasetManifest.load(dataset).fingerprint
    points = {} if current is None else current.points
    if config.points is not None:
        points = read_points(Path(config.points), funnel.cache)
    placed = replace(funnel, models=_placed(funnel.models), cache=_found(funnel.cache))
    points = {name: _found(cache) for name, cache in points.items()}
    return Generation(placed, dataset, fingerprint, points)


def _found(cache: CacheConfig) -> CacheConfig:
    """A cache whose models are found wherever the service is started."""
    prefetch = replace(cache.prefetch, models=_resolved(cache.prefetch.models))
    return replace(cache, adjuster=_resolved(cache.adjuster), prefetch=prefetch)


def _resolved(path: str | None) -> str | None:
    return path and str(Path(path).resolve())


def _placed(models: Mapping[str, ModelConfig]) -> dict[str, ModelConfig]:
    """Models by where they lie, wherever the service is started."""
    found = {}
    for name, model in models.items():
        stores = [one if "://" in one else str(Path(one).resolve()) for one in model.stores]
        found[name] = replace(model, path=str(Path(model.path).resolve()), stores=stores)
    return found


def _checked(state: ServiceState, generation: Generation) -> Served:
    """A generation put together, if nothing of it is missing; of its log nothing is counted."""
    config = ServeConfig(state="unused", known=KnowledgeConfig(log_hours=0.0))
    events = state.events if state.events.exists() else None
    dataset = LiveDataset.open(generation.dataset, events)
    served = Served(generation, config, dataset)
    for point in generation.points:
        served.at(point)
    dataset.live.close()
    return served
