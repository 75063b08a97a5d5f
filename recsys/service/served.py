"""A generation that a process serves: its funnel over what is known, and lists made before.

Legend: B requests, k places of a list, G groups of users.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recsys.core.errors import ConfigError
from recsys.core.schemas import instantiate, structured
from recsys.data.contract.schema import FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live.dataset import LiveDataset
from recsys.service.answer import Answer
from recsys.service.config import LOG, ServeConfig
from recsys.service.feed import NamedStore, open_store
from recsys.service.generations import Generation, ServiceState
from recsys.service.lists import StoredLists
from recsys.service.messages import Recommend
from recsys.service.raw_ids import RawIds
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.cache.stores import Store
from recsys.serving.funnel.candidates import Offers, Requests, Share, mix
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.funnel import VALUE, Funnel
from recsys.serving.funnel.ledger import Described
from recsys.serving.funnel.live_knowledge import LiveKnowledge
from recsys.serving.funnel.model import Model
from recsys.serving.funnel.prefetch.prefetcher import load_prefetcher
from recsys.serving.funnel.sources import most_popular

Integers = NDArray[np.int64]

#: Funnels with changes that are kept, the last ones used.
_CHANGED = 32
#: Items of the lists for everybody, of which a user gets those that are unseen.
_POPULAR = 500
_SOME_USERS = 1_000


class Served:
    """A generation over the live events.

    ``answer`` and ``refresh`` are for one thread, in which ``refresh`` comes first; the rest is
    for any.

    Args:
        generation: what is served.
        config: of the service.
        dataset: of the generation, with live events.
        known: of the data set, where another one has it already.
        models: of the funnel, likewise.
        store: of the funnel's cache, which all workers share; None for memory.

    Attributes:
        generation: what is served.
        point: at which operating point; None for the funnel as it is declared.
        declared: the funnel there.
        known: what is known.
        described: names of the funnel's parts.
        prefetcher: says at openings of the app for whom a list is made; None where none are.
        items: raw ids; users likewise.
        stored: lists made before, where there are any.

    Raises:
        ArtifactError: a model that it names is missing, damaged or another's.
        ConfigError: the funnel asks for what the data set does not have.
    """

    def __init__(
        self,
        generation: Generation,
        config: ServeConfig,
        dataset: LiveDataset,
        known: LiveKnowledge | None = None,
        models: Mapping[str, Model] | None = None,
        store: Store | None = None,
    ) -> None:
        self.generation, self._config, self.dataset = generation, config, dataset
        group = generation.funnel.group
        self.known = known or LiveKnowledge(dataset, group, config.known)
        self._models = _opened(generation.funnel, dataset) if models is None else models
        self._store = store
        self._named = None if store is None else NamedStore(store, dataset)
        self.items = RawIds(dataset.vocabulary("item"))
        self.users = RawIds(dataset.vocabulary("user"))
        self._declare(None)
        self.stored: StoredLists | None = None
        self._popular: list[Integers] = []

    @classmethod
    def open(
        cls,
        generation: Generation,
        config: ServeConfig,
        state: ServiceState,
        beside: Served | None = None,
    ) -> Served:
        """A generation; it shares what is known with the one beside, if that is of the same kind.

        Raises:
            ConfigError: the funnel asks for what the data set does not have.
            DataError: the data set or its events cannot be read.
        """
        known = None
        if beside is None:
            dataset = LiveDataset.open(generation.dataset, config.events or state.events)
        else:
            dataset = beside.dataset
            stored = PreparedDataset.open(generation.dataset)
            one = (dataset.path, dataset.manifest.fingerprint)
            if one != (stored.path, stored.manifest.fingerprint):
                # an LMDB is opened once in a process
                live = dataset.live.seen_by(stored)
                dataset = LiveDataset(stored.path, stored.manifest, live=live)
            elif beside.generation.funnel.group == generation.funnel.group:
                known = beside.known
        store = open_store(generation, dataset, state, config.feed)
        return cls(generation, config, dataset, known, store=store)

    def grown(self) -> Served:
        """The same with the items that were announced until now.

        It takes over what is open here, and this one is not closed then; but it may go on.
        """
        dataset = self.dataset.grown()
        models = {name: model.grown(dataset) for name, model in self._models.items()}
        known = self.known.grown(dataset)
        found = Served(self.generation, self._config, dataset, known, models, self._store)
        found.stored = self.stored
        return found.at(self.point)

    def at(self, point: str | None) -> Served:
        """The same at an operating point; what is open is open in both."""
        found = copy(self)
        found._declare(point)
        return found

    def reported_items(self, ids: Sequence[int | str]) -> Integers:
        """[n] as ``RawIds.reported``; those that were announced as they are noted."""
        found = self.items.reported(ids)
        strange = np.flatnonzero(found >= self.items.size)
        names = self.dataset.live.announced.names([ids[place] for place in strange.tolist()])
        found[strange] = np.where(names > 0, names, found[strange])
        return found

    def found_items(self, noted: NDArray[np.integer]) -> Integers:
        """[n] indices of items as they are noted; 0 for those that are not known here yet."""
        found = self.dataset.live.later.found(noted.astype(np.int64))
        return np.where(found < self.items.size, found, 0)

    def now(self) -> int:
        """The moment of a request that does not say its own, ms; by what was counted last."""
        if self._config.clock == LOG:
            return self.known.newest + 1
        return time.time_ns() // 1_000_000

    def refreshed_now(self) -> int:
        """The same, by what any process has appended; for the thread that answers."""
        self.known.refresh()
        return self.now()

    def answer(self, number: int, asked: Recommend) -> Answer:
        """A list by the funnel.

        Args:
            number: of the request.
            asked: who asks, and what for.

        Raises:
            ConfigError: the changes make no funnel, or the context is none of the data set's.
        """
        funnel, described = self.funnel, self.described
        if asked.changes:
            funnel, described = self._with(asked.changes)
        moment = self.refreshed_now() if asked.moment is None else asked.moment
        draws = number if asked.draws is None else asked.draws
        user = self.users.indices([asked.user])
        requests = self.known.ask(np.array([draws]), user, np.array([moment]))
        if asked.context:
            self._check_context(asked.context)
            columns = {name: np.array([of]) for name, of in asked.context.items()}
            requests = replace(requests, columns={**columns, **requests.columns})
        outcome = funnel.run(requests, asked.k)
        of = outcome.candidates
        shown = of.listed()
        scores = of.scores[VALUE][shown].tolist()
        items, generation = self.items.raw(of.item[shown]), self.generation.number
        noted = replace(of, item=self.dataset.live.later.noted(of.item))
        outcome = replace(outcome, candidates=noted)
        return Answer(number, items, scores, requests, generation, None, outcome, described)

    def noted_of(self, requests: Requests) -> Requests:
        """With the columns that a ledger has: what is given of the context differs from request to
        request, and files have one form.
        """
        group = self.generation.funnel.group
        kept = {name: of for name, of in requests.columns.items() if name == group}
        return replace(requests, columns=kept)

    def _check_context(self, context: Mapping[str, Any]) -> None:
        features = self.dataset.manifest.features
        known = [one.name for one in features if one.side is FeatureSide.CONTEXT]
        if unknown := [name for name in context if name not in known]:
            raise ConfigError(
                f"context: {unknown[0]} is no context feature of the data set; it has "
                f"{', '.join(known) or 'none'}."
            )

    def lists(self, users: Integers, k: int) -> Integers:
        """[B, k] items as they are noted for users [B] as of now; −1 where a list is shorter."""
        requests = self.known.ask(users, users, np.full(len(users), self.refreshed_now()))
        return self.dataset.live.later.noted(self.funnel.run(requests, k).lists(k))

    def has_list(self, user: int | str) -> bool:
        """Whether a list was made before for a user."""
        return len(self._listed(int(self.users.indices([user])[0]), self.now())) > 0

    def _listed(self, user: int, moment: int) -> Integers:
        """What can be shown at a moment of a user's list that was made before."""
        if self.stored is None:
            return np.empty(0, np.int64)
        found = self.found_items(self.stored.of(user))
        found = found[found > 0]
        return found[self.known.is_alive(found, moment)]

    def fallback(self, why: str, number: int, asked: Recommend) -> Answer:
        """What the user has not seen of the list made before, and then of what is popular."""
        at = self.now() if asked.moment is None else asked.moment
        index = self.users.indices([asked.user])
        items = self._popular[int(self.known.group(index)[0])]
        own = self._listed(int(index[0]), at)
        items = items[self.known.is_alive(items, at) & ~np.isin(items, own)]
        items = np.concatenate([own, items])
        moments = np.full(len(items), at)
        seen = self.known.seen(np.repeat(index, len(items)), moments, items)
        found = items[~seen][: asked.k]
        requests = Requests(np.array([number]), index, moments[:1])
        scores, generation = [float("nan")] * len(found), self.generation.number
        return Answer(number, self.items.raw(found), scores, requests, generation, why)

    def some_users(self) -> list[int | str | None]:
        """Raw ids of those who came first."""
        return self.users.raw(np.arange(1, min(_SOME_USERS, self.users.size)))

    def refresh(self) -> None:
        """Make the lists of each group anew: what is popular and passes the filters."""
        groups = len(self.known.groups)
        number, nobody = np.arange(groups), np.zeros(groups, np.int64)
        requests = self.known.ask(number, nobody, np.full(groups, self.now()))
        requests = replace(requests, columns=dict.fromkeys(requests.columns, number))
        popular = partial(most_popular, _POPULAR)
        items, score = self.known.standing(f"popular {_POPULAR}", popular)
        lengths = np.full(groups, items.shape[1])
        offers = Offers(lengths, items.ravel(), score.ravel().astype(np.float32))
        candidates = mix([offers], [Share(_POPULAR)], groups)
        for one in self.funnel.filters:
            candidates.leave_out(~one.keep(requests, candidates), 1)
        kept = [candidates.alive & (candidates.request == group) for group in range(groups)]
        self._popular = [candidates.item[one] for one in kept]

    def close(self) -> None:
        """Close what only this generation has open."""
        for one in (self.stored, self._store):
            if one is not None:
                one.close()

    def _declare(self, point: str | None) -> None:
        self.point, self.declared = point, self.generation.declared(point)
        self.funnel = self._build(self.declared, self._named)
        self.described = Described.of(self.funnel)
        prefetch = self.declared.cache.prefetch
        self.prefetcher = None if prefetch.models is None else load_prefetcher(prefetch)
        self._changed: OrderedDict[str, tuple[Funnel, Described]] = OrderedDict()

    def _build(self, funnel: FunnelConfig, store: Store | None = None) -> Funnel:
        tasks, models = self.known.tasks, self._models
        return build_funnel(funnel, self.known, tasks, models, True, store, self._listed)

    def _with(self, changes: Mapping[str, Any]) -> tuple[Funnel, Described]:
        key = repr(sorted(changes.items()))
        if key not in self._changed:
            changed = changed_funnel(self.declared, changes)
            for name in ("group", "models"):
                if getattr(changed, name) != getattr(self.declared, name):
                    raise ConfigError(f"changes: {name} cannot be; swap to another generation.")
            funnel = self._build(changed)
            self._changed[key] = funnel, Described.of(funnel)
            while len(self._changed) > _CHANGED:
                self._changed.popitem(last=False)
        self._changed.move_to_end(key)
        return self._changed[key]


def _opened(funnel: FunnelConfig, dataset: LiveDataset) -> dict[str, Model]:
    if not funnel.models:
        return {}
    # torch, which funnels of counts do without
    from recsys.serving.funnel.models.open import open_model

    return {name: open_model(name, model, dataset) for name, model in funnel.models.items()}


def changed_funnel(funnel: FunnelConfig, changes: Mapping[str, Any]) -> FunnelConfig:
    """A funnel of which some settings are otherwise.

    Args:
        funnel: as declared.
        changes: by key, such as ``value.expression``.

    Raises:
        ConfigError: there is no such setting, or the funnel cannot be.
    """
    config = structured(funnel)
    for key, value in changes.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        try:
            config = OmegaConf.merge(config, nested)  # type: ignore[assignment]
        except (OmegaConfBaseException, ValueError) as error:
            problem = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"changes: {key} cannot be that ({problem}); name settings as in conf/funnel."
            ) from error
    return instantiate(FunnelConfig, config)
