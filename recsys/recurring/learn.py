"""A service's first stage, trained again from its ledger, and served where it chooses no worse.

After Instagram's Explore: the first stage learns which candidates the later ones select.

Legend: Q requests.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from recsys.core.bounds import HoursAboveZero, Name, OutPath, Settings
from recsys.core.errors import ConfigError
from recsys.core.folders import FolderKind, check_folder, locked_folder
from recsys.core.json_files import write_json
from recsys.data.contract.schema import Split
from recsys.data.stores.live import LiveDataset
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.recurring.scored_rows import SERVED, write_scored
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.service.config import GenerationConfig
from recsys.service.generations import Generation, ServiceState
from recsys.service.release import swap
from recsys.serving.funnel.config import FunnelConfig, ModelConfig, StageConfig
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run
from recsys.systems.runs import load_run, train
from recsys.systems.sized_run import fitted_to_data
from recsys.systems.two_tower.selection import Selection
from recsys.systems.two_tower.system import TwoTowerSystem

_MARKER, _KIND = "learning.json", "learning of a service"
_FOLDER = FolderKind("the learning of a service", _MARKER, ("state",), ("*",))
_DATA, _RUN, _ARTIFACT, _BEST = "data", "run", "artifact", "best.ckpt"


@dataclass(frozen=True)
class LearnConfig(Settings):
    """What a service's first stage learns from.

    Attributes:
        state: folder of the service.
        folder: of the trainings.
        model: what the first stage is called in the funnel.
        train: further settings of `recsys train`, of a two-tower.
        hours: of the ledger, before its newest request, that are learned from.
    """

    state: str = MISSING
    folder: OutPath = MISSING
    model: Name = "first"
    train: list[str] = field(default_factory=list)
    hours: HoursAboveZero = 24.0


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        training: its number.
        kept: of how many best candidates of a request the recall is.
        served: recall of what later stages select, by the first stage that was served.
        new: by the new one.
        change: of the two, on the same requests.
        generation: that is served now; None where the new one is surely worse.
    """

    training: int
    kept: int
    served: float
    new: float
    change: Interval
    generation: int | None


def learn(config: LearnConfig) -> Learned:
    """Train, measure on the newest requests, and serve what is not surely worse.

    Raises:
        ConfigError: ``train`` has what is decided here.
        RecsysError: nothing is served, there are too few requests, or a step cannot be done; what
            is served stays.
    """
    for override in config.train:
        if override.partition("=")[0] in ("run_dir", "resume", "system", "warm_start.checkpoint"):
            raise ConfigError(f"train has {override}, which is decided here; leave it out.")
    folder, state = Path(config.folder), ServiceState(Path(config.state))
    generation = state.current()
    check_folder(folder, _FOLDER, [state.folder, generation.dataset])
    with locked_folder(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / _MARKER).exists():
            write_json(folder / _MARKER, _KIND, {"state": str(state.folder.resolve())})
        return _learn(config, folder, state, generation)


def _learn(
    config: LearnConfig, folder: Path, state: ServiceState, generation: Generation
) -> Learned:
    former = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())
    number = 1 + max(former, default=0)
    place = folder / f"{number:06d}"
    place.mkdir()
    dataset = LiveDataset.open(generation.dataset, state.events)
    try:
        rows = write_scored(dataset, state.ledgers(), config.hours, place / _DATA)
    finally:
        dataset.live.close()
    for one in former:  # rows of before, most of which are in these too
        shutil.rmtree(folder / f"{one:06d}" / _DATA, ignore_errors=True)
    settings = [
        "system=two_tower",
        "model.objective=select",
        "data=log",
        f"data.out={place / _DATA}",
        f"run_dir={place / _RUN}",
        *_warm_start(config, generation.funnel),
        *config.train,
    ]
    run_config, _ = fitted_to_data(compose_run(settings), settings)
    train(run_config)
    run: Any = load_run(place / _RUN)
    system = TwoTowerSystem()
    first, last = run.dataset.manifest.split_bounds[Split.REPORT]
    selection = Selection(run.dataset.requests(Split.REPORT), run.config.kept)
    newest = rows.filter(rows["request_time"].is_between(first, last, closed="left"))
    assert (newest["item"].to_numpy() == selection.requests.item).all()
    kept = selection.kept[0]
    served = selection.recall(torch.from_numpy(newest[SERVED].to_numpy().copy()), kept)
    new = selection.recall(system.selection_logits(run, selection), kept)
    change = selection.interval(new - served, Bootstrap())
    found = Learned(number, kept, float(np.nanmean(served)), float(np.nanmean(new)), change, None)
    if change.high < 0:
        return found
    system.export(run, ExportConfig(run_dir=str(place / _RUN), measure=False))
    funnel = _with_first(config.model, generation.funnel, place / _RUN / _ARTIFACT)
    return replace(found, generation=swap(GenerationConfig(funnel, state=config.state)))


def _warm_start(config: LearnConfig, funnel: FunnelConfig) -> list[str]:
    """The weights of the first stage that is served, where it was learned here."""
    if config.model not in funnel.models:
        return []
    run = Path(funnel.models[config.model].path).parent
    if run.parent.parent != Path(config.folder).resolve():
        return []
    return [f"warm_start.checkpoint={run / CHECKPOINTS / _BEST}"]


def _with_first(name: str, funnel: FunnelConfig, artifact: Path) -> FunnelConfig:
    """The funnel with another first stage, which scores as many candidates."""
    first = funnel.first or StageConfig(candidates=funnel.limit)
    models = {**funnel.models, name: ModelConfig(str(artifact.resolve()))}
    return replace(funnel, models=models, first=replace(first, scorer=name))
