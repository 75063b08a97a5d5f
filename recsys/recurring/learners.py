"""What a stage of a funnel learns from its ledger, how that is measured, and when it is served.

Legend: Q requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import polars as pl
import torch

from recsys.core.bounds import HoursAboveZero, Name, OneOf, Settings
from recsys.core.composition import load
from recsys.core.errors import ConfigError
from recsys.data.contract.ledger import SELECTED, VALUE_RANK
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import Column, Split
from recsys.evaluation.comparisons import compare, measure
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.together import MEAN, NE_DELTA
from recsys.recurring.experience import Experience, of_last_hours, write_rows
from recsys.recurring.learned_rows import SERVED, scored, shown
from recsys.runs.checkpoints import CHECKPOINTS
from recsys.runs.config import RunConfig
from recsys.runs.files import CONFIG_FILE
from recsys.serving.funnel.config import FunnelConfig, ModelConfig, StageConfig
from recsys.systems.base import ExportConfig
from recsys.systems.choice import compose_run, system_of_run
from recsys.systems.ranker.system import RankerSystem
from recsys.systems.runs import load_run, train
from recsys.systems.sized_run import fitted_to_data
from recsys.systems.two_tower.selection import Selection
from recsys.systems.two_tower.system import TwoTowerSystem

#: The stages that learn.
FIRST, SECOND = "first", "second"
_DATA, _RUN, _ARTIFACT, _BEST = "data", "run", "artifact", "best.ckpt"
_DECIDED = ("run_dir", "resume", "system", "warm_start.checkpoint")


@dataclass(frozen=True)
class LearningConfig(Settings):
    """What a stage learns from.

    Attributes:
        stage: ``first``, of what the second one scored, or ``second``, of what users did.
        model: what the first stage is called in the funnel; the second has a name there.
        train: further settings of `recsys train`.
        hours: of the ledger, before its newest request, that are learned from.
    """

    stage: Annotated[str, OneOf((FIRST, SECOND))] = FIRST
    model: Name = "first"
    train: list[str] = field(default_factory=list)
    hours: HoursAboveZero = 24.0

    def __post_init__(self) -> None:
        """Refuse what a learning decides itself."""
        super().__post_init__()
        for override in self.train:
            if override.partition("=")[0] in _DECIDED:
                raise ConfigError(f"train has {override}, which is decided here; leave it out.")


@dataclass(frozen=True)
class Measured:
    """How a stage does on the newest requests.

    Attributes:
        what: is measured.
        served: of the stage that is served.
        new: of the new one.
        change: of the two, on the same requests.
        is_worse: whether the new one is surely worse, by the better end of the interval, or is
            not defined.
    """

    what: str
    served: float
    new: float
    change: Interval
    is_worse: bool


class Learner(Protocol):
    """One training of a stage."""

    system: Any

    def write(self, of: Experience, out: Path) -> None:
        """Write the data set that it is trained on.

        Raises:
            DataError: there are too few requests.
        """

    def config(self, data: Path, run_dir: Path) -> RunConfig:
        """The training."""

    def measure(self, run: Any) -> Measured:
        """On the newest requests, which neither has seen."""

    def funnel(self, artifact: Path) -> FunnelConfig:
        """The funnel with the new stage."""


def learned(learner: Learner, of: Experience, place: Path) -> tuple[Measured, FunnelConfig | None]:
    """Train a stage and measure it.

    Args:
        learner: of the stage.
        of: what it learns from.
        place: an empty folder for its data set and run.

    Returns:
        What was measured, and the funnel with the stage, None where it is not to be served.

    Raises:
        RecsysError: there are too few requests, or a step cannot be done.
    """
    learner.write(of, place / _DATA)
    train(learner.config(place / _DATA, place / _RUN))
    measured = learner.measure(load_run(place / _RUN))
    if measured.is_worse:
        return measured, None
    run = load_run(place / _RUN)
    learner.system.export(run, ExportConfig(run_dir=str(place / _RUN), measure=False))
    return measured, learner.funnel(place / _RUN / _ARTIFACT)


def data_of(place: Path) -> Path:
    """Where the data set of a training lies."""
    return place / _DATA


def learner_of(config: LearningConfig, funnel: FunnelConfig, folder: Path) -> Learner:
    """Of a configuration.

    Args:
        config: of the stage.
        funnel: that is served.
        folder: of the trainings.

    Raises:
        ConfigError: the funnel has no such stage that could go on learning.
    """
    return (FirstStage if config.stage == FIRST else SecondStage)(config, funnel, folder)


class FirstStage:
    """Learns which candidates the later stages select (Instagram's Explore: PSelect)."""

    def __init__(self, config: LearningConfig, funnel: FunnelConfig, folder: Path) -> None:
        self._config, self._funnel, self._folder = config, funnel, folder
        self.system = TwoTowerSystem()

    def write(self, of: Experience, out: Path) -> None:
        """Candidates that the second stage scored."""
        rows = of_last_hours(scored(of), self._config.hours)
        first, last = write_rows(of, rows.drop(SERVED), (SELECTED, VALUE_RANK), out)
        self._newest = rows.filter(pl.col(Column.REQUEST_TIME).is_between(first, last, "left"))

    def config(self, data: Path, run_dir: Path) -> RunConfig:
        """A two-tower, from the weights that are served where they were learned here."""
        settings = [
            f"system={self.system.name}",
            "model.objective=select",
            "data=log",
            f"data.out={data}",
            f"run_dir={run_dir}",
            *self._warm_start(),
            *self._config.train,
        ]
        return fitted_to_data(compose_run(settings), settings)[0]

    def measure(self, run: Any) -> Measured:
        """The share of what was selected that is among so many best."""
        selection = Selection(run.dataset.requests(Split.REPORT), run.config.kept)
        newest = self._newest
        assert (newest["item"].to_numpy() == selection.requests.item).all()
        kept = selection.kept[0]
        served = selection.recall(torch.from_numpy(newest[SERVED].to_numpy().copy()), kept)
        new = selection.recall(self.system.selection_logits(run, selection), kept)
        change = selection.interval(new - served, Bootstrap())
        what = f"share of what later stages selected that the {kept} best hold"
        both = float(np.nanmean(served)), float(np.nanmean(new))
        return Measured(what, *both, change, not change.high >= 0)

    def funnel(self, artifact: Path) -> FunnelConfig:
        """With another first stage, which scores as many candidates."""
        funnel, name = self._funnel, self._config.model
        first = funnel.first or StageConfig(candidates=funnel.limit)
        models = {**funnel.models, name: ModelConfig(str(artifact.resolve()))}
        return replace(funnel, models=models, first=replace(first, scorer=name))

    def _warm_start(self) -> Sequence[str]:
        model = self._funnel.models.get(self._config.model)
        if model is None or Path(model.path).parent.parent.parent != self._folder.resolve():
            return []
        return [f"warm_start.checkpoint={Path(model.path).parent / CHECKPOINTS / _BEST}"]


class SecondStage:
    """Goes on learning what users do with what they are shown, from the weights that are served.

    Raises:
        ConfigError: the second stage of the funnel is no ranker whose run lies beside its artifact.
    """

    def __init__(self, config: LearningConfig, funnel: FunnelConfig, folder: Path) -> None:
        self._config, self._funnel = config, funnel
        self.system = RankerSystem()
        self._name = funnel.second.scorer
        if self._name not in funnel.models:
            raise ConfigError(
                f"stage={SECOND}: the second stage of the funnel is {self._name}, which does not "
                "learn; serve a funnel whose second stage is a trained ranker."
            )
        self._served = Path(funnel.models[self._name].path).resolve().parent
        is_run = (self._served / CONFIG_FILE).is_file()
        if not is_run or system_of_run(self._served).name != self.system.name:
            raise ConfigError(
                f"stage={SECOND}: beside the artifact of funnel.models.{self._name} is no run of a "
                f"ranker ({self._served}), whose weights could be gone on with; name the artifact "
                "in the folder of its run."
            )

    def write(self, of: Experience, out: Path) -> None:
        """What was shown since the rows that the served one was fitted on."""
        since = DatasetManifest.load(self._served).split_bounds[Split.FIT][1]
        rows = of_last_hours(shown(of), self._config.hours, since)
        write_rows(of, rows, of.dataset.manifest.tasks, out)
        self._data = out

    def config(self, data: Path, run_dir: Path) -> RunConfig:
        """The training of the ranker that is served, gone on with."""
        settings = [
            f"data.out={data}",
            "data.path=null",
            "data.source=log",
            f"run_dir={run_dir}",
            f"warm_start.checkpoint={self._served / CHECKPOINTS / _BEST}",
            "warm_start.names=[]",
            "warm_start.ignore=[]",
            *self._config.train,
        ]
        found: RunConfig = load(self._served / CONFIG_FILE, self.system.config, settings)
        return found

    def measure(self, run: Any) -> Measured:
        """The mean NE of the tasks, of both on the same rows."""
        served = load_run(self._served, "best", str(self._data), Split.REPORT)
        ours, theirs = (
            self.system.predicted(one, self.system.data(one.config, one.dataset), Split.REPORT)
            for one in (run, served)
        )
        tasks = run.manifest.tasks
        change = compare(ours, theirs, tasks, Bootstrap())[f"{NE_DELTA}/{MEAN}"]
        before, now = (measure(frame, tasks).get(f"ne/{MEAN}", np.nan) for frame in (theirs, ours))
        what = "mean NE of the newest rows"
        return Measured(what, before, now, change, not change.low <= 0)

    def funnel(self, artifact: Path) -> FunnelConfig:
        """With another ranker of the same name."""
        models = self._funnel.models
        new = replace(models[self._name], path=str(artifact.resolve()))
        return replace(self._funnel, models={**models, self._name: new})
