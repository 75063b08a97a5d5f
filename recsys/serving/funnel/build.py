"""Puts a declared funnel together from what is known of users and items.

Legend: B requests, n pairs, V items, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.manifest import MANIFEST_FILE, sha256
from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Task, TaskKind
from recsys.serving.funnel.cache.adjuster import load_adjuster
from recsys.serving.funnel.cache.config import ADJUSTED, LIST, STALE
from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.cache.lists import LastList, WithoutList
from recsys.serving.funnel.cache.rescore import Decay, Rescore, stale
from recsys.serving.funnel.cache.stage import Cache
from recsys.serving.funnel.cache.stores import MemoryStore, Store, row_type
from recsys.serving.funnel.cache.user_sides import KeptSides, UserSided
from recsys.serving.funnel.candidates import Requests, Share
from recsys.serving.funnel.config import (
    RANDOM,
    RATES,
    FunnelConfig,
    SourceConfig,
    StageConfig,
)
from recsys.serving.funnel.explore import Exploration
from recsys.serving.funnel.funnel import Funnel, Scoring, Supply, Valuing
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.model import Model
from recsys.serving.funnel.sources import Favourites, Fresh, Lists, Precomputed, Trending, drawn
from recsys.serving.funnel.stages import AtLeast, Filter, SameAs, Scorer, Seen, Source, TooOld
from recsys.serving.funnel.value import parse_value


@dataclass(frozen=True, eq=False)
class Rates:
    """Scores by what is counted.

    Attributes:
        known: what was shown and done.
        tasks: order of the tasks in what comes out; None for one number, by the user's taste and
            how often the item is engaged with.
        name: of the scorer.
    """

    known: Knowledge
    tasks: NDArray[np.int64] | None = None
    name: str = RATES

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
    name: str = RANDOM

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n] or [n, K] in [0, 1), the same of every task."""
        key = np.repeat(requests.number, lengths) * 2**32 + item
        score = (drawn(self.seed, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return score if self.tasks is None else np.repeat(score[:, None], self.tasks, axis=1)


def build_funnel(
    config: FunnelConfig,
    known: Knowledge,
    tasks: Sequence[Task],
    models: Mapping[str, Model] | None = None,
    tolerant: bool = False,
    store: Store | None = None,
    lists: Lists | None = None,
) -> Funnel:
    """The funnel of a configuration.

    Args:
        config: as declared.
        known: what its stages look at.
        tasks: K, in the order of ``known.expected``.
        models: those that it names, opened.
        tolerant: whether a stage that fails is done without, as in a service; else it is raised.
        store: where its cache is kept; None for memory of its own.
        lists: made before, as of :class:`Precomputed`; None where nobody makes any.

    Raises:
        ConfigError: it asks for what is not known of users or items, or values what is no task; or
            a model is not one for its place, or lists are wanted that nobody makes.
    """
    opened = models or {}
    binary = [task.name for task in tasks if task.kind is TaskKind.BINARY]
    other = [task.name for task in tasks if task.kind is not TaskKind.BINARY]
    names = [task.name for task in tasks]
    predicted = {name: names.index(name) for name in (*binary, *other)}  # as values are computed
    value = config.value
    expressions = {g: parse_value(text, binary, other) for g, text in value.of_group.items()}
    supplies = _supplies(config, known, opened, lists)
    cache = None
    if config.cache.used:
        kept = MemoryStore() if store is None else store
        cache = _cache(config, known, list(predicted), kept)
        if config.cache.policy == LIST:
            supplies = _last_list(supplies, config, cache.feed, known)
    second = _scoring(config, config.second, known, opened, predicted)
    sides = None
    if config.cache.keeps_user_sides:
        second, sides = _with_sides(config, second)
    exploration = None
    if config.exploration is not None:
        sources = [one.source.name for one in supplies]
        number = sources.index(config.exploration.source)
        exploration = Exploration(number, config.exploration.places, config.seed)
    return Funnel(
        supplies=supplies,
        limit=config.limit,
        filters=_filters(config, known),
        first=None if config.first is None else _scoring(config, config.first, known, opened),
        second=second,
        value=Valuing(parse_value(value.expression, binary, other), config.group, expressions),
        rules=config.rerank,
        exploration=exploration,
        columns=_columns(config, known),
        tolerant=tolerant,
        cache=cache,
        user_sides=sides,
    )


def _with_sides(config: FunnelConfig, second: Scoring) -> tuple[Scoring, KeptSides]:
    """A second stage whose model keeps what it makes of users, and what it keeps."""
    of, scorer = config.cache, second.scorer
    if not isinstance(scorer, UserSided):
        raise ConfigError(
            f"cache.policy={of.policy} keeps what an exported ranker makes of a user once and for "
            f"all candidates; second.scorer={config.second.scorer} has no such side. Name a ranker "
            "there, or another policy."
        )
    kept = KeptSides(scorer.sides, round(of.max_age_hours * MILLISECONDS_PER_HOUR), of.users)
    return replace(second, scorer=scorer.keeping(kept)), kept


def _cache(config: FunnelConfig, known: Knowledge, tasks: list[str], store: Store) -> Cache:
    of = config.cache
    rescore: Rescore = stale if of.policy in (LIST, STALE) else Decay(of.decay, of.max_age_hours)
    if of.policy == ADJUSTED and of.adjuster is not None:
        rescore = load_adjuster(Path(of.adjuster), tasks)
    age = round(of.max_age_hours * MILLISECONDS_PER_HOUR)
    feed = FeedState(store, row_type(len(tasks)), _generation(config, tasks), age, of.items)
    return Cache(feed, known, rescore, of.sample_share, config.seed)


def _generation(config: FunnelConfig, tasks: list[str]) -> str:
    """What scores are of: scorers with another one predict other things."""
    scorer = config.second.scorer
    model = config.models.get(scorer)
    file = "" if model is None else sha256(Path(model.path) / MANIFEST_FILE)
    return f"{scorer} {model} {file} {config.seed} {tasks}"


def _last_list(
    supplies: list[Supply], config: FunnelConfig, feed: FeedState, known: Knowledge
) -> list[Supply]:
    """The last list, and other sources for those who have none."""
    last = LastList(feed, known, config.cache.unseen)
    others = [replace(one, source=WithoutList(one.source, last)) for one in supplies]
    return [*others, Supply(last, Share(config.cache.items))]


def _supplies(
    config: FunnelConfig, known: Knowledge, models: Mapping[str, Model], lists: Lists | None
) -> list[Supply]:
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
    if of.precomputed is not None:
        if lists is None:
            raise ConfigError(
                "funnel.sources.precomputed reads the lists that `recsys precompute` makes for a "
                "service, and here is none; leave it out (sources.precomputed=null)."
            )
        add(Precomputed(known, lists, of.precomputed.quota), of.precomputed)
    for name, retrieved in of.retrieved.items():
        if retrieved is not None:
            add(models[retrieved.model].source(name, retrieved, known), retrieved)
    for name, similar in of.similar.items():
        if similar is not None:
            add(models[similar.model].similar(name, similar, known), similar)
    return found


def _filters(config: FunnelConfig, known: Knowledge) -> list[Filter]:
    of = config.filters
    found: list[Filter] = [Seen(known)]
    if of.min_integrity is not None:
        found.append(AtLeast(known.number("integrity"), of.min_integrity, "integrity"))
    if of.own_region:
        if config.group is None:
            raise ConfigError(
                "funnel.filters.own_region compares items with the user's group; name the column "
                "that both have, such as group: region."
            )
        found.append(SameAs(known.column(config.group), config.group))
    if of.max_age_hours is not None:
        found.append(TooOld(known.born, of.max_age_hours))
    return found


def _scoring(
    config: FunnelConfig,
    stage: StageConfig,
    known: Knowledge,
    models: Mapping[str, Model],
    tasks: Mapping[str, int] | None = None,
) -> Scoring:
    """A stage; ``tasks`` are those it predicts, with their places in what is counted."""
    scorer: Scorer
    if stage.scorer in models:
        scorer = models[stage.scorer].scorer(None if tasks is None else list(tasks))
    elif stage.scorer == RANDOM:
        scorer = Drawn(config.seed, None if tasks is None else len(tasks))
    else:
        scorer = Rates(known, None if tasks is None else np.array(list(tasks.values())))
    return Scoring(scorer, stage.candidates, stage.deadline_ms)


def _columns(config: FunnelConfig, known: Knowledge) -> Mapping[str, NDArray]:
    """What the rules of the list are about, by name."""
    rules = config.rerank
    shared = [*(one.column for one in rules.apart), *(one.column for one in rules.at_most)]
    columns: dict[str, NDArray] = {name: known.column(name) for name in shared}
    return columns | {one.column: known.number(one.column) for one in rules.downrank}
