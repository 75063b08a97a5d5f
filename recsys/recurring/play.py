"""A funnel that goes on learning while it is played in a world, beside one that does not.

Every simulated hour its stages learn from the ledger of the hours before, as those of a service do
by `recsys recur learn`; what is not surely worse is taken up between two ticks.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from recsys.core.bounds import HoursAboveZero, OutPath, Settings
from recsys.core.errors import ConfigError, DataError
from recsys.core.folders import check_place
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.simulator.world.play import Recommended
from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.world import World
from recsys.online.compare import OnlineComparison, OnlineConfig, compare_policies
from recsys.online.funnel import FunnelPolicy
from recsys.online.policies import funnel_named, make_policy
from recsys.recurring.experience import Experience
from recsys.recurring.learners import (
    SECOND,
    LearningConfig,
    Measured,
    data_of,
    learned,
    learner_of,
)
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig

_LEDGER = "ledger"


@dataclass(frozen=True)
class HourlyConfig(Settings):
    """How a funnel learns while it is played.

    Attributes:
        folder: new, of its ledgers and trainings.
        dataset: the prepared log of the world, of the models and of those that learn.
        every_hours: of the world, between two trainings.
        stages: what learns.
    """

    folder: OutPath
    dataset: str
    every_hours: HoursAboveZero = 1.0
    stages: list[LearningConfig] = field(default_factory=lambda: [LearningConfig(SECOND)])


@dataclass(frozen=True)
class PlayConfig(Settings):
    """What is played, and how the tried funnel learns.

    Attributes:
        online: both policies; the tried one is a funnel.
        learning: of the tried funnel.
    """

    online: OnlineConfig
    learning: HourlyConfig

    def __post_init__(self) -> None:
        """Refuse a ledger: there is one for each generation."""
        super().__post_init__()
        if self.online.ledger is not None:
            raise ConfigError(
                f"online.ledger={self.online.ledger}: the ledgers lie in learning.folder, one for "
                "each generation; leave it out."
            )


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        moment: ms, when it was begun in the world.
        stage: that has learned.
        measured: the new one beside the one before; None where nothing was learned.
        why: nothing was; None where something was.
    """

    moment: int
    stage: str
    measured: Measured | None
    why: str | None = None


def play_learning(config: PlayConfig) -> tuple[OnlineComparison, list[Trained]]:
    """Play a funnel that learns, and what it is compared with, on the same visits.

    Raises:
        ConfigError: the tried policy is no funnel, or a stage cannot learn.
        RecsysError: a training cannot be done.
    """
    online, folder = config.online, Path(config.learning.folder)
    if folder.exists():
        raise ConfigError(
            f"learning.folder={folder} is there already; give a new one, or remove it yourself."
        )
    check_place(folder, [online.simulation, config.learning.dataset])
    world = World.open(Path(online.simulation))
    funnel = funnel_named(online.policy, online.changes)
    with closing(LearningPolicy(world, funnel, config.learning)) as tried:
        policies = {
            f"{online.tried} learning": tried,
            online.against: make_policy(online.against, world),
        }
        return compare_policies(online, world, policies), tried.trained


class LearningPolicy(FunnelPolicy):
    """A funnel whose stages learn by the hour.

    Args:
        world: to be played.
        config: the funnel it begins with.
        learning: how it learns.

    Attributes:
        trained: what has come of each training.

    Raises:
        ConfigError: a stage of the funnel cannot learn.
    """

    def __init__(self, world: World, config: FunnelConfig, learning: HourlyConfig) -> None:
        super().__init__(world, config)
        self._declared, self._learning = config, learning
        self._folder = Path(learning.folder)
        self._log = self.log_of(Path(learning.dataset))
        self._next: float | None = None
        self._generation = 0
        self.trained: list[Trained] = []
        for one in learning.stages:
            learner_of(one, config, self._folder / one.stage)
        self._begin_ledger()

    def recommend(self, requests: Visits, k: int) -> Recommended:
        """Lists, by what was learned until the tick."""
        now, every = int(requests.time[0]), self._learning.every_hours * MILLISECONDS_PER_HOUR
        if self._next is None:
            self._next = now + every
        if now >= self._next:
            self._next = now + every
            self._learn(now)
        return super().recommend(requests, k)

    def close(self) -> None:
        """Write what of the ledger is not written yet."""
        assert self.ledger is not None
        self.ledger.close()

    def _learn(self, now: int) -> None:
        self.close()
        for one in self._learning.stages:
            self.trained.append(self._trained(one, now))
        self._begin_ledger()

    def _trained(self, config: LearningConfig, now: int) -> Trained:
        folder = self._folder / config.stage
        learner = learner_of(config, self._declared, folder)
        place = folder / f"{len(self.trained):06d}"
        place.mkdir(parents=True)
        ledgers = sorted((self._folder / _LEDGER).iterdir())
        of = Experience(self._log.dataset, ledgers, self._log.numbering)
        try:
            measured, funnel = learned(learner, of, place)
        except DataError as error:  # there may be enough an hour later
            return Trained(now, config.stage, None, str(error))
        finally:
            shutil.rmtree(data_of(place), ignore_errors=True)
        if funnel is not None:
            self._declared = funnel
            self.take_up(funnel, self._log)
        return Trained(now, config.stage, measured)

    def _begin_ledger(self) -> None:
        place = self._folder / _LEDGER / f"{self._generation:06d}"
        self.ledger = Ledger(place, Described.of(self.funnel), LedgerConfig(patient=True))
        self._generation += 1
