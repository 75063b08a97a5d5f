"""A declared funnel as a policy of a played world.

Legend: B requests, n pairs, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import TaskKind
from recsys.data.simulator.world.play import NOTHING, Recommended, Shown
from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.world import World
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.regret import RegretSums
from recsys.serving.funnel.candidates import Requests, Share
from recsys.serving.funnel.config import FunnelConfig, SourceConfig, StageConfig
from recsys.serving.funnel.explore import Exploration
from recsys.serving.funnel.funnel import SECOND, Funnel, Scoring, Supply, Valuing
from recsys.serving.funnel.ledger import Ledger
from recsys.serving.funnel.sources import Favourites, Fresh, Trending, drawn
from recsys.serving.funnel.stages import AtLeast, Filter, SameAs, Scorer, Seen, Source, TooOld
from recsys.serving.funnel.value import parse_value

#: The column of users and items that says who may get what.
REGION = "region"


@dataclass(frozen=True, eq=False)
class Rates:
    """Scores by what is counted.

    Attributes:
        known: what was shown and done.
        tasks: order of the tasks in what comes out; None for one number, by the user's taste and
            how often the item is engaged with.
        name: of the scorer.
    """

    known: PlayedKnowledge
    tasks: NDArray[np.int64] | None = None
    name: str = "rates"

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n] or [n, K]."""
        user = np.repeat(requests.user, lengths)
        if self.tasks is None:
            return self.known.affinity(user, item)
        return self.known.expected(user, item)[:, self.tasks]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Scores that say nothing: drawn for each request and item.

    Attributes:
        seed: of the draws.
        tasks: how many numbers of a pair; None for one.
        name: of the scorer.
    """

    seed: int
    tasks: int | None = None
    name: str = "random"

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n] or [n, K] in [0, 1), the same of every task."""
        key = np.repeat(requests.number, lengths) * 2**32 + item
        score = (drawn(self.seed, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return score if self.tasks is None else np.repeat(score[:, None], self.tasks, axis=1)


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
        self._known = PlayedKnowledge(world)
        self._asked = 0
        self.regret: RegretSums | None = None
        self.ledger: Ledger | None = None
        self.funnel = _funnel(world, self._known, config)

    def recommend(self, requests: Visits, k: int) -> Recommended:
        """Lists by the funnel, with the propensities of what was drawn."""
        self._known.at(requests)
        region = self._known.group(requests.user) + 1
        number = np.arange(self._asked, self._asked + len(requests))
        self._asked += len(requests)
        of = Requests(number, requests.user, requests.time, {REGION: region})
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
        asked = ~np.isnan(candidates.scores[SECOND]).all(axis=1)
        return Recommended(items, propensity, int(asked.sum()))

    def observe(self, shown: Shown) -> None:
        """Count it."""
        self._known.observe(shown)


def _funnel(world: World, known: PlayedKnowledge, config: FunnelConfig) -> Funnel:
    binary = [task.name for task in world.tasks if task.kind is TaskKind.BINARY]
    other = [task.name for task in world.tasks if task.kind is not TaskKind.BINARY]
    names = [task.name for task in world.tasks]
    order = np.array([names.index(name) for name in (*binary, *other)])
    value = config.value
    expressions = {g: parse_value(text, binary, other) for g, text in value.of_group.items()}
    # 0 stands for everybody where regions are compared
    columns = {name: known.column(name) + 1 for name in ("author", "topic", REGION)}
    supplies = _supplies(known, config)
    exploration = None
    if config.exploration is not None:
        sources = [one.source.name for one in supplies]
        number = sources.index(config.exploration.source)
        exploration = Exploration(number, config.exploration.places, config.seed)
    return Funnel(
        supplies=supplies,
        limit=config.limit,
        filters=_filters(known, config, columns[REGION]),
        first=None if config.first is None else _scoring(known, config, config.first, None),
        second=_scoring(known, config, config.second, order),
        value=Valuing(parse_value(value.expression, binary, other), REGION, expressions),
        rules=config.rerank,
        exploration=exploration,
        columns={**columns, "integrity": known.integrity},
    )


def _supplies(known: PlayedKnowledge, config: FunnelConfig) -> list[Supply]:
    of, found = config.sources, []

    def add(source: Source, declared: SourceConfig) -> None:
        share = Share(declared.quota, declared.weight)
        found.append(Supply(source, share, declared.deadline_ms))

    if of.trending is not None:
        add(Trending(known, of.trending.quota), of.trending)
    for declared, column in ((of.favourite_authors, "author"), (of.favourite_topics, "topic")):
        if declared is not None:
            add(Favourites(known, column, declared.each, declared.quota), declared)
    if of.fresh is not None:
        add(Fresh(known, of.fresh.hours, of.fresh.quota, config.seed), of.fresh)
    return found


def _filters(
    known: PlayedKnowledge, config: FunnelConfig, region: NDArray[np.int64]
) -> list[Filter]:
    of = config.filters
    found: list[Filter] = [Seen(known)]
    if of.min_integrity is not None:
        found.append(AtLeast(known.integrity, of.min_integrity, "integrity"))
    if of.own_region:
        found.append(SameAs(region, REGION))
    if of.max_age_hours is not None:
        found.append(TooOld(known.born, of.max_age_hours))
    return found


def _scoring(
    known: PlayedKnowledge,
    config: FunnelConfig,
    stage: StageConfig,
    tasks: NDArray[np.int64] | None,
) -> Scoring:
    scorer: Scorer
    if stage.scorer == "random":
        scorer = Drawn(config.seed, None if tasks is None else len(tasks))
    else:
        scorer = Rates(known, tasks)
    return Scoring(scorer, stage.candidates, stage.deadline_ms)
