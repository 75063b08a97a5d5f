"""A declared funnel as a policy of a played world."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys.data.simulator.world.play import NOTHING, Recommended, Shown
from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.world import World
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.played_log import PlayedLog, known_context, trained_on_log
from recsys.online.regret import RegretSums
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig, ModelConfig
from recsys.serving.funnel.funnel import SECOND
from recsys.serving.funnel.ledger import Ledger
from recsys.serving.funnel.model import Model


class FunnelPolicy:
    """Runs a funnel for the visits of a world.

    Args:
        world: to be played.
        config: the funnel.

    Attributes:
        funnel: as it was put together.
        regret: sums what stages lose, where it is set.
        ledger: notes what becomes of candidates, where it is set.

    Raises:
        ConfigError: the funnel asks for what a world does not have.
    """

    name = "funnel"

    def __init__(self, world: World, config: FunnelConfig) -> None:
        self._world = world
        self._known = PlayedKnowledge(world, config.group)
        self._asked = 0
        self.regret: RegretSums | None = None
        self.ledger: Ledger | None = None
        self._group = config.group
        self._logs: dict[Path, PlayedLog] = {}
        models = {name: self._opened(name, model) for name, model in config.models.items()}
        self.funnel = build_funnel(config, self._known, world.tasks, models)

    def recommend(self, requests: Visits, k: int) -> Recommended:
        """Lists by the funnel, with the propensities of what was drawn."""
        self._known.at(requests)
        columns = known_context(self._world, requests) if self._logs else {}
        if self._group is not None:
            columns[self._group] = self._known.group(requests.user)
        number = np.arange(self._asked, self._asked + len(requests))
        self._asked += len(requests)
        of = Requests(number, requests.user, requests.time, columns)
        outcome = self.funnel.run(of, k)
        if self.regret is not None:
            self.regret.add(requests, of, outcome, k)
        if self.ledger is not None:
            self.ledger.note(of, outcome)
        candidates = outcome.candidates
        propensity = np.full((len(requests), k), np.nan, np.float32)
        explored = np.flatnonzero(~np.isnan(candidates.propensity) & (candidates.position > 0))
        place = candidates.position[explored] - 1
        propensity[candidates.request[explored], place] = candidates.propensity[explored]
        items = outcome.lists(k)
        items[items < 0] = NOTHING
        cached, samples = int(candidates.cached.sum()), outcome.samples
        predicted = int((~np.isnan(candidates.scores[SECOND]).all(axis=1)).sum())
        scored = predicted - cached + (0 if samples is None else len(samples.at))
        return Recommended(items, propensity, scored, cached)

    def observe(self, shown: Shown) -> None:
        """Count it, and note it where models read it."""
        self._known.observe(shown)
        for log in self._logs.values():
            log.observe(shown)

    def _opened(self, name: str, config: ModelConfig) -> Model:
        """A model on the data set that it was trained on, which models may share."""
        # torch, which funnels of counts do without
        from recsys.serving.funnel.models.open import open_model

        folder = trained_on_log(Path(config.path))
        if folder not in self._logs:
            self._logs[folder] = PlayedLog(self._world, folder)
        log = self._logs[folder]
        return open_model(name, config, log.dataset, log.numbering)
