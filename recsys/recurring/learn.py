"""A stage of a service, trained again from its ledger, and served where it is not surely worse.

After Instagram's Explore: the first stage learns which candidates the later ones select, the
second what users do; both go on learning by the hour.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from omegaconf import MISSING

from recsys.core.bounds import OutPath, StoreAddress
from recsys.core.folders import FolderKind, check_folder, locked_folder
from recsys.core.json_files import write_json
from recsys.data.stores.live import LiveDataset
from recsys.recurring.experience import Experience
from recsys.recurring.learners import LearningConfig, Measured, data_of, learned, learner_of
from recsys.service.config import GenerationConfig
from recsys.service.generations import Generation, ServiceState
from recsys.service.release import swap

_MARKER, _KIND = "learning.json", "learning of a service"
_FOLDER = FolderKind("the learning of a service", _MARKER, ("state",), ("*",))


@dataclass(frozen=True)
class LearnConfig(LearningConfig):
    """What a stage of a service learns from.

    Attributes:
        state: folder of the service.
        folder: of the trainings of this stage.
        events: Redis in which what was reported is kept; None for the state.
    """

    state: str = MISSING
    folder: OutPath = MISSING
    events: Annotated[str, StoreAddress()] | None = None


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        training: its number.
        measured: the new stage beside the one that was served.
        generation: that is served now; None where the new one is surely worse.
    """

    training: int
    measured: Measured
    generation: int | None


def learn(config: LearnConfig) -> Learned:
    """Train, measure on the newest requests, and serve what is not surely worse.

    Raises:
        ConfigError: the funnel has no such stage that could go on learning.
        RecsysError: nothing is served, there are too few requests, or a step cannot be done; what
            is served stays.
    """
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
    learner = learner_of(config, generation.funnel, folder)
    former = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())
    number = 1 + max(former, default=0)
    place = folder / f"{number:06d}"
    place.mkdir()
    for one in former:  # rows of before, most of which are in these too
        shutil.rmtree(data_of(folder / f"{one:06d}"), ignore_errors=True)
    dataset = LiveDataset.open(generation.dataset, config.events or state.events)
    try:
        measured, funnel = learned(learner, Experience(dataset, state.ledgers()), place)
    finally:
        dataset.live.close()
    if funnel is None:
        return Learned(number, measured, None)
    return Learned(number, measured, swap(GenerationConfig(funnel, state=config.state)))
