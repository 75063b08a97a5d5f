"""Runs the stages of a funnel for some requests, and says what became of each candidate.

Legend: B requests, N candidates over all requests, n those that a stage is asked about, V items,
K tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import RecsysError
from recsys.data.contract.ledger import FIRST, SECOND, VALUE
from recsys.serving.funnel.cache.stage import Cache, Recalled
from recsys.serving.funnel.cache.user_sides import KeptSides
from recsys.serving.funnel.candidates import (
    GAP,
    Candidates,
    Offers,
    Requests,
    Share,
    mix,
    place_of,
)
from recsys.serving.funnel.explore import Exploration, explore
from recsys.serving.funnel.rerank import RerankConfig, rerank
from recsys.serving.funnel.stages import Filter, Scorer, Source, column_of
from recsys.serving.funnel.value import ValueModel

_T = TypeVar("_T")

#: Candidates that a scorer under a deadline is given at a time.
_TILE = 128
#: Names of the other stages that every funnel has; sources and filters have their own.
MIXED, LIST = "mix", "list"
#: Of those with a cache, between the first and the second, and once the list is made.
CACHE, REMEMBER = "cache", "remember"


@dataclass(frozen=True, eq=False)
class Supply:
    """A source and its part.

    Attributes:
        source: finds candidates.
        share: how many, and how much its ranking counts.
        deadline_ms: after which it is left out; None for no deadline.
    """

    source: Source
    share: Share
    deadline_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Scoring:
    """A stage that scores.

    Attributes:
        scorer: gives [n] as the first stage, [n, K] of the value model's tasks as the second.
        candidates: so many of each request are scored, at most.
        deadline_ms: after which no more are scored; None for no deadline.
    """

    scorer: Scorer
    candidates: int
    deadline_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Valuing:
    """What candidates are worth, for all users or for groups of them.

    Attributes:
        model: of those in no group.
        column: of the users, by which groups are told.
        groups: by its value another model.
    """

    model: ValueModel
    column: str | None = None
    groups: Mapping[int, ValueModel] = field(default_factory=dict)

    def of(
        self, requests: Requests, request: NDArray[np.int64], predictions: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """[n] of predictions [n, K] for the requests [n]."""
        value = self.model(predictions)
        if self.column is not None:
            group = column_of(requests, self.column)[request]
            for name, model in self.groups.items():
                value = np.where(group == name, model(predictions), value)
        return value


@dataclass(eq=False)
class Outcome:
    """What a funnel did.

    Attributes:
        candidates: every one, with its scores, its end or its place.
        seconds: by stage.
        missed: by stage what went wrong there, of those that were late or failed.
        samples: cached candidates that were scored freshly too, with what was predicted then, to
            learn from; None without a cache.
        sides_kept: [B] whether what the second stage's model makes of the user was kept from an
            earlier request; None where it is not kept.
    """

    candidates: Candidates
    seconds: dict[str, float]
    missed: dict[str, str]
    samples: Recalled | None = None
    sides_kept: NDArray[np.bool_] | None = None

    def of_request(self, number: int) -> Outcome:
        """What became of one request; seconds and what was missed are those of all."""
        one, samples = self.candidates.of_request(number), self.samples
        if samples is not None:
            first = int(self.candidates.lengths[:number].sum())
            samples = samples.between(first, first + len(one.item))
        kept = None if self.sides_kept is None else self.sides_kept[number : number + 1]
        return Outcome(one, self.seconds, self.missed, samples, kept)

    def lists(self, k: int) -> NDArray[np.int64]:
        """[B, k] items by place; −1 where a list is shorter."""
        of = self.candidates
        found = np.full((len(of.lengths), k), -1, np.int64)
        shown = of.position > 0
        found[of.request[shown], of.position[shown] - 1] = of.item[shown]
        return found


@dataclass(frozen=True, eq=False)
class Funnel:
    """Stages, in the order in which they act.

    Attributes:
        supplies: sources, side by side.
        limit: candidates of a request after mixing, at most.
        filters: one after the other.
        first: cheap scores of thousands; None where what the sources say decides.
        second: predictions of the few hundred that the first stage left.
        value: of these predictions.
        rules: of the list.
        exploration: of the list; None for none.
        columns: [V] of the items by name, that the rules are about.
        embedding: [V, W] of the items, of length 1, where likeness counts.
        tolerant: whether a stage that fails is done without, as in a service; else it is raised.
        cache: of what the second stage has predicted; None for none.
        user_sides: that the second stage's model keeps; None where it keeps none.
    """

    supplies: Sequence[Supply]
    limit: int
    filters: Sequence[Filter]
    first: Scoring | None
    second: Scoring
    value: Valuing
    rules: RerankConfig = field(default_factory=RerankConfig)
    exploration: Exploration | None = None
    columns: Mapping[str, NDArray] = field(default_factory=dict)
    embedding: NDArray[np.float32] | None = None
    tolerant: bool = False
    cache: Cache | None = None
    user_sides: KeptSides | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names by number, as candidates say where they ended."""
        scoring = (FIRST, SECOND) if self.cache is None else (FIRST, CACHE, SECOND)
        return (MIXED, *(one.name for one in self.filters), *scoring, VALUE, LIST)

    def run(self, requests: Requests, k: int) -> Outcome:
        """Lists of k items for B requests."""
        run = _Run(self, requests)
        run.sources()
        run.filters()
        run.second(run.first())
        run.list(k)
        if self.cache is not None:
            run.remember(self.cache, k)
        return run.outcome


class _Run:
    """One way through a funnel."""

    def __init__(self, funnel: Funnel, requests: Requests) -> None:
        self._funnel = funnel
        self._requests = requests
        self._stages = funnel.stages
        self.outcome = Outcome(mix([], [], len(requests)), {}, {})

    @property
    def _candidates(self) -> Candidates:
        return self.outcome.candidates

    def sources(self) -> None:
        supplies, requests = self._funnel.supplies, self._requests
        if any(one.deadline_ms is not None for one in supplies):
            offers = self._side_by_side()
        else:
            nothing = Offers.none(len(requests))
            offers = [
                self._timed(one.source.name, partial(one.source.find, requests), nothing)
                for one in supplies
            ]
        self.outcome.candidates = mix(offers, [one.share for one in supplies], len(requests))
        self._candidates.keep_best(
            self._candidates.fused, self._funnel.limit, self._stages.index(MIXED)
        )

    def _side_by_side(self) -> list[Offers]:
        """What sources find until their deadlines; those that are late go on for nobody."""
        supplies, requests = self._funnel.supplies, self._requests
        started = time.perf_counter()
        pool = ThreadPoolExecutor(len(supplies))
        futures = [pool.submit(one.source.find, requests) for one in supplies]
        found = []
        for one, future in zip(supplies, futures, strict=True):
            left = None
            if one.deadline_ms is not None:
                left = max(one.deadline_ms / 1_000 - (time.perf_counter() - started), 0)
            wait([future], left)
            nothing = Offers.none(len(requests))
            found.append(self._timed(one.source.name, partial(future.result, 0), nothing))
            self.outcome.seconds[one.source.name] = time.perf_counter() - started
        pool.shutdown(wait=False, cancel_futures=True)
        return found

    def filters(self) -> None:
        """A filter that fails is never done without: what it keeps away might be shown."""
        for number, one in enumerate(self._funnel.filters, 1):
            started = time.perf_counter()
            self._candidates.leave_out(~one.keep(self._requests, self._candidates), number)
            self.outcome.seconds[one.name] = time.perf_counter() - started

    def first(self) -> NDArray[np.floating]:
        """Leaves the second stage its candidates; [N] by what they are ordered."""
        candidates, scoring = self._candidates, self._funnel.first
        order: NDArray[np.floating] = candidates.fused
        if scoring is not None:
            candidates.scores[FIRST] = self._scored(FIRST, scoring, order, candidates.alive)
            if FIRST not in self.outcome.missed:
                order = candidates.scores[FIRST]
        candidates.keep_best(order, self._funnel.second.candidates, self._stages.index(FIRST))
        return order

    def second(self, order: NDArray[np.floating]) -> None:
        """Predictions of as many candidates as there is time for, and what they are worth."""
        candidates = self._candidates
        width = len(self._funnel.value.model.predicted)
        cache, asked = self._funnel.cache, candidates.alive
        if cache is not None:
            recall = partial(cache.recall, self._requests, candidates)
            self._recalled = self._timed(CACHE, recall, Recalled.nothing(width))
            candidates.scores[GAP] = self._recalled.gaps(len(asked))
            asked[self._recalled.at] = False
        if self._funnel.user_sides is not None:
            self.outcome.sides_kept = self._funnel.user_sides.of(self._requests)
        predictions = self._scored(SECOND, self._funnel.second, order, asked, width)
        if cache is not None:
            predictions[self._recalled.at] = self._recalled.predictions
        candidates.scores[SECOND] = predictions
        asked = ~np.isnan(predictions).all(axis=1)
        value = np.full(len(asked), np.nan)
        if asked.any():
            of = candidates.request[asked]
            value[asked] = self._funnel.value.of(self._requests, of, predictions[asked])
        elif SECOND in self.outcome.missed:  # the order so far is all there is
            asked, value = candidates.alive, order.astype(np.float64)
        candidates.leave_out(~asked, self._stages.index(SECOND))
        candidates.scores[VALUE] = np.where(candidates.alive, value, np.nan)
        candidates.leave_out(np.isnan(value), self._stages.index(VALUE))

    def list(self, k: int) -> None:
        """Padded, each request's candidates that are left, and reranked."""
        candidates, funnel = self._candidates, self._funnel
        started = time.perf_counter()
        alive = np.flatnonzero(candidates.alive)
        request = candidates.request[alive]
        lengths = np.bincount(request, minlength=len(self._requests))
        column = place_of(lengths)
        shape = (len(self._requests), int(lengths.max(initial=0)))
        row = np.full(shape, -1, np.int64)
        row[request, column] = alive
        there = row >= 0
        item = np.where(there, candidates.item[row], 0) if row.size else row
        value = np.full(shape, np.nan)
        value[there] = candidates.scores[VALUE][row[there]]
        embedding = None if funnel.embedding is None else funnel.embedding[item]
        columns = {name: of[item] for name, of in funnel.columns.items()}
        ranked = rerank(funnel.rules, value, columns, k, embedding)
        of_request, place = np.nonzero(ranked.place >= 0)
        shown = row[of_request, ranked.place[of_request, place]]
        candidates.position[shown] = place + 1
        if funnel.exploration is not None:
            explore(candidates, self._requests, funnel.exploration, len(funnel.filters), k)
        candidates.leave_out(candidates.position == 0, self._stages.index(LIST))
        self.outcome.seconds[LIST] = time.perf_counter() - started

    def remember(self, cache: Cache, k: int) -> None:
        """Keep what was scored, and score some of what was cached, to learn from."""
        requests, candidates, scores = self._requests, self._candidates, self._candidates.scores

        nothing = Recalled.nothing(scores[SECOND].shape[1])

        def remember() -> Recalled:
            cache.note(requests, candidates, scores[SECOND], self.outcome.lists(k))
            some = cache.sampled(requests, candidates, self._recalled.cached)
            if not len(some.at):
                return nothing
            return Recalled(some, self._of(self._funnel.second.scorer, some.at))

        self.outcome.samples = self._timed(REMEMBER, remember, nothing)

    def _scored(
        self,
        stage: str,
        scoring: Scoring,
        order: NDArray[np.floating],
        asked: NDArray[np.bool_],
        *width: int,
    ) -> NDArray[np.floating]:
        """[N], or [N, K], of the best candidates by ``order``, as many as there is time for.

        Args:
            stage: its name.
            scoring: its scorer, how many it scores and until when.
            order: [N].
            asked: [N] whom it is asked about.
            width: K, where there are several numbers of a candidate.
        """
        candidates = self._candidates
        rows = np.flatnonzero(asked)
        request = candidates.request[rows]
        best = rows[np.lexsort((-order[rows], request))]
        lengths = np.bincount(request, minlength=len(self._requests))
        rank = place_of(lengths)
        best, rank = best[rank < scoring.candidates], rank[rank < scoring.candidates]
        scores = np.full((len(candidates.item), *width), np.nan, np.float32)
        started = time.perf_counter()
        step = len(best) if scoring.deadline_ms is None else _TILE
        for first in range(0, int(rank.max(initial=-1)) + 1, max(step, 1)):
            late = scoring.deadline_ms is not None and (
                (time.perf_counter() - started) * 1_000 >= scoring.deadline_ms
            )
            if late:
                self.outcome.missed[stage] = f"late after {first} candidates"
                break
            # in the order of the candidates, which scorers may rely on
            some = np.sort(best[(rank >= first) & (rank < first + step)])
            found = self._timed(stage, partial(self._of, scoring.scorer, some), None)
            if found is None:
                break
            scores[some] = found
        self.outcome.seconds[stage] = time.perf_counter() - started
        return scores

    def _of(self, scorer: Scorer, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        candidates = self._candidates
        lengths = np.bincount(candidates.request[rows], minlength=len(self._requests))
        return scorer.score(self._requests, lengths, candidates.item[rows])

    def _timed(self, stage: str, task: Callable[[], _T], instead: _T) -> _T:
        """What a task gives; ``instead`` where it fails and that is tolerated."""
        started = time.perf_counter()
        try:
            return task()
        except TimeoutError:
            self.outcome.missed[stage] = "late"
            return instead
        except Exception as error:
            if not self._funnel.tolerant:
                raise
            kind = "" if isinstance(error, RecsysError) else f"{type(error).__name__}: "
            self.outcome.missed[stage] = f"{kind}{error}"
            return instead
        finally:
            self.outcome.seconds[stage] = time.perf_counter() - started
