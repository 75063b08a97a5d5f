"""Offline metrics of a funnel: a ledger's lists made again with another value model or other rules.

What the second stage said is noted, and it is enough: no source is asked and no model is run.

Legend: B requests, N candidates that came to the second stage, k places, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import DataError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Task
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.candidates import Candidates, Offers, Requests, Share
from recsys.serving.funnel.config import (
    FiltersConfig,
    FreshConfig,
    FunnelConfig,
    SourcesConfig,
    StageConfig,
)
from recsys.serving.funnel.funnel import SECOND, Scoring, Supply
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.ledger import noted

Integers = NDArray[np.int64]

#: More than any request has.
_ALL = 10**9


@dataclass(frozen=True, eq=False)
class NotedCandidates:
    """What the second stage of some requests was asked and said: source and scorer of a replay.

    Attributes:
        requests: B.
        lengths: [B] candidates of each.
        item: [N], in the order in which they were noted.
        predictions: [N, K].
        name: of the source and the scorer.
    """

    requests: Requests
    lengths: Integers
    item: Integers
    predictions: NDArray[np.floating]
    name: str = "noted"

    def find(self, requests: Requests) -> Offers:
        """All of them, in their order."""
        return Offers(self.lengths, self.item, np.zeros(len(self.item), np.float32))

    def score(self, requests: Requests, lengths: Integers, item: Integers) -> NDArray[np.floating]:
        """What was noted of all of them."""
        return self.predictions


def read_noted(ledger: Path, number: int) -> NotedCandidates:
    """Requests spread evenly over a ledger, so many at most, of those at which nothing was missed.

    Raises:
        DataError: it holds no candidate of the second stage.
    """
    parts = [(of, found.candidates) for of, found in noted(ledger) if not found.missed]
    there = sum(len(of) for of, _ in parts)
    wanted = np.zeros(there, np.bool_)
    wanted[np.linspace(0, there - 1, min(number, there)).astype(np.int64)] = True
    chosen = np.split(wanted, np.cumsum([len(of) for of, _ in parts], dtype=np.int64))[:-1]
    some = [
        _asked(of, candidates, rows) for (of, candidates), rows in zip(parts, chosen, strict=True)
    ]
    if not sum(len(one.item) for one in some):
        raise DataError(f"{ledger} holds no candidate about which the second stage was asked.")

    def joined(name: str) -> NDArray:
        return np.concatenate([getattr(one, name) for one in some])

    def of_requests(name: str) -> NDArray:
        return np.concatenate([getattr(one.requests, name) for one in some])

    names = some[0].requests.columns
    columns = {n: np.concatenate([one.requests.columns[n] for one in some]) for n in names}
    requests = Requests(of_requests("number"), of_requests("user"), of_requests("moment"), columns)
    return NotedCandidates(requests, joined("lengths"), joined("item"), joined("predictions"))


def _asked(of: Requests, candidates: Candidates, chosen: NDArray[np.bool_]) -> NotedCandidates:
    """The candidates of chosen requests [B] about which the second stage was asked."""
    predictions = candidates.scores[SECOND]
    asked = ~np.isnan(predictions).all(axis=1) & chosen[candidates.request]
    lengths = np.bincount(candidates.request[asked], minlength=len(of))[chosen]
    columns = {name: column[chosen] for name, column in of.columns.items()}
    requests = Requests(of.number[chosen], of.user[chosen], of.moment[chosen], columns)
    return NotedCandidates(requests, lengths, candidates.item[asked], predictions[asked])


class Replay:
    """Makes the lists of noted requests again, and measures them.

    Exploration is left out: what it draws follows from no parameter of the value model or rules.

    Args:
        known: of which columns and ages of items are read.
        tasks: of the predictions.
        noted: what was noted.
        now: the funnel as it is.
        depth: items of a list that are seen, on average.
        k: places of a list.

    Attributes:
        now: offline metrics of the funnel as it is.
    """

    def __init__(
        self,
        known: Knowledge,
        tasks: Sequence[Task],
        noted: NotedCandidates,
        now: FunnelConfig,
        depth: float,
        k: int,
    ) -> None:
        self._known, self._tasks, self._noted, self._k = known, tasks, noted, k
        #: How likely a place is seen, were it left at each place with the same probability.
        self._reached = (1 - 1 / max(depth, 1.0)) ** np.arange(k)
        self._shared = {name: known.column(name) for name in ("author", "topic")}
        self._listed_now = self._listed(self._run(now))
        self.now = self.metrics(now)

    def metrics(self, funnel: FunnelConfig) -> dict[str, float]:
        """Offline metrics of a funnel's lists, items counted as likely as their place is seen.

        Returns:
            ``<task>``, what is predicted of an item on average; ``age_hours``;
            ``different_authors`` and ``different_topics`` per item; ``kept``, share of the items
            that the funnel as it is lists too.

        Raises:
            ConfigError: the funnel asks for what is not there.
        """
        of = self._run(funnel)
        shown = of.position > 0
        request, item = of.request[shown], of.item[shown]
        weight = self._reached[of.position[shown] - 1]
        weight = weight / weight.sum()
        age = self._noted.requests.moment[request] - self._known.born[item]
        found = dict(zip(self._names, weight @ of.scores[SECOND][shown], strict=True))
        found["age_hours"] = weight @ age / MILLISECONDS_PER_HOUR
        for name, column in self._shared.items():
            pairs = np.unique(np.stack([request, column[item]]), axis=1)
            found[f"different_{name}s"] = pairs.shape[1] / len(item)
        found["kept"] = weight @ np.isin(self._listed(of), self._listed_now)
        return {name: float(value) for name, value in found.items()}

    def _run(self, funnel: FunnelConfig) -> Candidates:
        # what is left of it runs no model, so none is opened
        late = replace(
            funnel,
            models={},
            sources=SourcesConfig(fresh=FreshConfig()),
            limit=_ALL,
            filters=FiltersConfig(),
            first=None,
            second=StageConfig(),
            exploration=None,
        )
        built = build_funnel(late, self._known, self._tasks)
        self._names = built.value.model.predicted
        noted_ones = [Supply(self._noted, Share(_ALL))]
        second = Scoring(self._noted, _ALL)
        replayed = replace(built, supplies=noted_ones, filters=[], second=second)
        return replayed.run(self._noted.requests, self._k).candidates

    def _listed(self, of: Candidates) -> Integers:
        """A key of request and item for each listed candidate."""
        shown = of.position > 0
        key: Integers = of.request[shown] * len(self._known.born) + of.item[shown]
        return key
