"""A declared funnel as a policy of a played world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.simulator.world.play import Opened, Recommended
from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.viewing import NOTHING, Shown
from recsys.data.simulator.world.world import Visits as WorldVisits
from recsys.data.simulator.world.world import World
from recsys.online.freshness import FreshSums
from recsys.online.in_advance import InAdvance
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.played_log import PlayedLog, known_context, trained_on_log
from recsys.online.regret import RegretSums
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.cache.config import CacheConfig
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig, ModelConfig
from recsys.serving.funnel.funnel import SECOND, Outcome
from recsys.serving.funnel.ledger import Ledger
from recsys.serving.funnel.model import Model

#: Numbers of requests for lists in advance begin here, apart from those of visits: what is drawn
#: for a visit is the same whether others have lists in advance or not.
_IN_ADVANCE = 2**30


class FunnelPolicy:
    """Runs a funnel for the visits of a world.

    Args:
        world: to be played.
        config: the funnel.

    Attributes:
        funnel: as it was put together.
        plain: the same without a cache.
        in_advance: lists that are made when users open the app.
        regret: sums what stages lose, where it is set.
        fresh: compares lists with those of ``plain``, where it is set.
        ledger: notes what becomes of candidates, where it is set.

    Raises:
        ConfigError: the funnel asks for what a world does not have.
    """

    name = "funnel"

    def __init__(self, world: World, config: FunnelConfig) -> None:
        self._world = world
        self._known = PlayedKnowledge(world, config.group)
        self._asked, self._listed = 0, _IN_ADVANCE
        self.regret: RegretSums | None = None
        self.fresh: FreshSums | None = None
        self.ledger: Ledger | None = None
        self._group = config.group
        self._logs: dict[Path, PlayedLog] = {}
        self._models: dict[str, tuple[ModelConfig, Model]] = {}
        self.take_up(config)
        self.in_advance = InAdvance(world, config.cache.prefetch)

    def take_up(self, config: FunnelConfig, log: PlayedLog | None = None) -> None:
        """Go on with this funnel; models that it has already stay open.

        Args:
            config: the funnel.
            log: what its other models read; None for the data sets that they were trained on.

        Raises:
            ConfigError: the funnel asks for what a world does not have.
        """
        for name, model in config.models.items():
            if self._models.get(name, (None, None))[0] != model:
                self._models[name] = model, self._opened(name, model, log)
        models = {name: self._models[name][1] for name in config.models}
        tasks, known = self._world.tasks, self._known
        self.funnel = build_funnel(config, known, tasks, models)
        self.plain = build_funnel(replace(config, cache=CacheConfig()), known, tasks, models)

    def log_of(self, folder: Path) -> PlayedLog:
        """A prepared data set of the world's log, which models may share, and what is played."""
        folder = folder.resolve()
        if folder not in self._logs:
            self._logs[folder] = PlayedLog(self._world, folder)
        return self._logs[folder]

    def recommend(self, requests: Visits, k: int) -> Recommended:
        """Lists by the funnel, with the propensities of what was drawn."""
        self._known.at(requests)
        of = self._requests(requests, np.arange(self._asked, self._asked + len(requests)))
        self._asked += len(requests)
        kept = self.in_advance.take(requests)
        anew = np.array([one is None for one in kept], np.bool_)
        lists = [one for one in kept if one is not None]
        answers = [one.answer for one in lists]
        if anew.any():
            answers.insert(0, self._anew(requests.only(np.flatnonzero(anew)), of.only(anew), k))
        answer = _merged(anew, answers)
        if self.fresh is not None:
            self.fresh.add(of, answer.items, self.plain)
        if self.ledger is not None:
            for one, moment in zip(lists, requests.time[~anew].tolist(), strict=True):
                self.ledger.note(*one.shown_at(moment))
        self.in_advance.habits.visited(requests.user, requests.time)
        return answer

    def opened(self, opens: Visits, notified: NDArray[np.bool_], k: int) -> Opened:
        """Make lists in advance for those who are worth it."""
        features = self.in_advance.habits.features(opens.user, opens.time, notified)
        chosen = self.in_advance.chosen(opens, features)
        pairs = np.zeros(len(opens), np.int64)
        if chosen.any():
            self._known.at(opens)
            some = opens.only(np.flatnonzero(chosen))
            of = self._requests(some, np.arange(self._listed, self._listed + len(some)))
            self._listed += len(some)
            outcome = self.funnel.run(of, k)
            answer = replace(_answer(outcome, k), asked=some.time)
            self.in_advance.keep(of, outcome, answer)
            pairs[chosen] = np.asarray(answer.pairs_scored) + answer.pairs_sampled
        self.in_advance.habits.opened(opens.user, opens.time)
        return Opened(opens.user, opens.time, features, chosen, pairs)

    def waited(
        self, visits: WorldVisits, wait_ms: NDArray[np.float64], in_advance: NDArray[np.bool_]
    ) -> None:
        """Count the waits for lists that were made at the visit."""
        user, time = visits.user[~in_advance], visits.time[~in_advance]
        self.in_advance.habits.waited(user, time, wait_ms[~in_advance])

    def observe(self, shown: Shown) -> None:
        """Count it, and note it where models read it."""
        self._known.observe(shown)
        self.in_advance.observe(shown)
        for log in self._logs.values():
            log.observe(shown)

    def _anew(self, visits: Visits, of: Requests, k: int) -> Recommended:
        """Lists that are made at the visit."""
        outcome = self.funnel.run(of, k)
        if self.regret is not None:
            self.regret.add(visits, of, outcome, k)
        if self.ledger is not None:
            self.ledger.note(of, outcome)
        return _answer(outcome, k)

    def _requests(self, asked: Visits, number: NDArray[np.int64]) -> Requests:
        columns = known_context(self._world, asked) if self._logs else {}
        if self._group is not None:
            columns[self._group] = self._known.group(asked.user)
        return Requests(number, asked.user, asked.time, columns)

    def _opened(self, name: str, config: ModelConfig, log: PlayedLog | None) -> Model:
        # torch, which funnels of counts do without
        from recsys.serving.funnel.models.open import open_model

        log = log or self.log_of(trained_on_log(Path(config.path)))
        return open_model(name, config, log.dataset, log.numbering)


def _answer(outcome: Outcome, k: int) -> Recommended:
    """Lists of k, all of them asked for at the visit."""
    candidates, samples = outcome.candidates, outcome.samples
    requests = len(candidates.lengths)
    propensity = np.full((requests, k), np.nan, np.float32)
    explored = np.flatnonzero(~np.isnan(candidates.propensity) & (candidates.position > 0))
    place = candidates.position[explored] - 1
    propensity[candidates.request[explored], place] = candidates.propensity[explored]
    items = outcome.lists(k)
    items[items < 0] = NOTHING
    cached = np.bincount(candidates.request[candidates.cached], minlength=requests)
    predicted = candidates.request[~np.isnan(candidates.scores[SECOND]).all(axis=1)]
    sampled = candidates.request[np.empty(0, np.int64) if samples is None else samples.at]
    return Recommended(
        items,
        propensity,
        np.bincount(predicted, minlength=requests) - cached,
        cached,
        np.bincount(sampled, minlength=requests),
        np.full(requests, NOTHING),
        np.zeros(requests, bool) if outcome.sides_kept is None else outcome.sides_kept,
    )


def _merged(anew: NDArray[np.bool_], answers: list[Recommended]) -> Recommended:
    """Those that were made ``anew`` [B], all in one, and the others one by one, by request."""
    order = np.argsort(np.concatenate([np.flatnonzero(anew), np.flatnonzero(~anew)]))
    names = vars(answers[0])
    whole = {name: np.concatenate([vars(one)[name] for one in answers]) for name in names}
    return Recommended(**whole).only(order)
