"""A declared funnel as a policy of a played world."""

from __future__ import annotations

import numpy as np

from recsys.data.simulator.world.play import NOTHING, Recommended, Shown
from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.world import World
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.played_log import PlayedLog
from recsys.online.regret import RegretSums
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig
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
        self._log: PlayedLog | None = None
        models: dict[str, Model] = {}
        if config.models:
            # torch, which funnels of counts do without
            from recsys.serving.funnel.models.open import open_models

            self._log = PlayedLog.of_models(world, config.models)
            models = open_models(config.models, self._log.dataset, self._log.numbering)
        self.funnel = build_funnel(config, self._known, world.tasks, models)

    def recommend(self, requests: Visits, k: int) -> Recommended:
        """Lists by the funnel, with the propensities of what was drawn."""
        self._known.at(requests)
        columns = {} if self._log is None else self._log.context(requests)
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
        if self._log is not None:
            self._log.observe(shown)
