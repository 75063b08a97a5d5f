"""The stage of a funnel that knows what was scored before (Smart Cache §3, figure 2).

Legend: B requests, N candidates over all requests, n those that are cached, K tasks, k places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.cache.rescore import FEATURES, Cached, Rescore
from recsys.serving.funnel.candidates import Candidates, Requests
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.sources import drawn

#: Apart from what else is drawn for a request.
_SAMPLED = 0x5A3B1E
#: Of a logarithm: smaller affinities are as good as none.
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Recalled:
    """Cached candidates, and what is predicted of them.

    Attributes:
        cached: as they were.
        predictions: [n, K] what their scores are worth now.
    """

    cached: Cached
    predictions: NDArray[np.floating]

    @classmethod
    def nothing(cls, tasks: int) -> Recalled:
        """None of them."""
        none = np.empty((0, tasks), np.float32)
        cached = Cached(np.empty(0, np.int64), none, np.empty((0, len(FEATURES)), np.float32))
        return cls(cached, none)

    @property
    def at(self) -> NDArray[np.int64]:
        """[n] their places among the candidates."""
        return self.cached.at

    def between(self, first: int, last: int) -> Recalled:
        """Those at places from ``first`` to before ``last``, counted from there."""
        some = (self.at >= first) & (self.at < last)
        of = self.cached.only(some)
        return Recalled(Cached(of.at - first, of.scores, of.features), self.predictions[some])

    def gaps(self, candidates: int) -> NDArray[np.float32]:
        """[N] hours since they were scored; NaN for those that were not."""
        found = np.full(candidates, np.nan, np.float32)
        found[self.at] = self.cached.gap_hours
        return found


@dataclass(frozen=True, eq=False)
class Cache:
    """Which candidates need not be scored, and what becomes of those that were.

    Attributes:
        feed: what was scored.
        known: counters as of now.
        rescore: what cached scores are worth now.
        sample_share: share of requests whose cached candidates are scored freshly, to learn from.
        seed: of the draws.
    """

    feed: FeedState
    known: Knowledge
    rescore: Rescore
    sample_share: float = 0.0
    seed: int = 0

    def recall(self, requests: Requests, candidates: Candidates) -> Recalled:
        """Those of the candidates that are alive and cached within T1."""
        entries = self.feed.entries(requests)
        alive = np.flatnonzero(candidates.alive)
        item = candidates.item[alive]
        stride = int(max(item.max(initial=0), entries.rows["item"].max(initial=0))) + 1
        owner = np.repeat(np.arange(len(requests)), entries.lengths)
        kept, asked = (
            of * stride + items
            for of, items in ((owner, entries.rows["item"]), (candidates.request[alive], item))
        )
        order = np.argsort(kept)
        place = np.searchsorted(kept[order], asked)
        there = place < len(kept)
        there[there] = kept[order[place[there]]] == asked[there]
        rows, at = entries.rows[order[place[there]]], alive[there]
        cached = Cached(at, rows["scores"], self._features(requests, candidates, at, rows))
        return Recalled(cached, self.rescore(cached))

    def sampled(self, requests: Requests, candidates: Candidates, cached: Cached) -> Cached:
        """Those of the cached ones that are of a request to learn from."""
        bits = drawn(self.seed ^ _SAMPLED, requests.number)
        chosen = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < self.sample_share
        return cached.only(chosen[candidates.request[cached.at]])

    def note(
        self,
        requests: Requests,
        candidates: Candidates,
        scores: NDArray[np.floating],
        lists: NDArray[np.int64],
    ) -> None:
        """Keep what was scored freshly; not where a score is no number.

        Args:
            requests: B.
            candidates: of them.
            scores: [N, K] by the second stage.
            lists: [B, k] items by place; −1 for none.
        """
        at = np.flatnonzero(np.isfinite(scores).all(axis=1) & ~candidates.cached)
        rows = np.zeros(len(at), self.feed.row)
        request = candidates.request[at]
        rows["item"], rows["moment"] = candidates.item[at], requests.moment[request]
        rows["scores"], rows["counters"] = scores[at], self._counters(requests, candidates, at)
        self.feed.note(requests, np.bincount(request, minlength=len(requests)), rows, lists)

    def _counters(
        self, requests: Requests, candidates: Candidates, at: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n, C] of ``COUNTERS``, now."""
        item, user = candidates.item[at], requests.user[candidates.request[at]]
        engagements, affinity = self.known.engagements(item), self.known.affinity(user, item)
        return np.stack([engagements, affinity], axis=1)

    def _features(
        self,
        requests: Requests,
        candidates: Candidates,
        at: NDArray[np.int64],
        rows: NDArray[np.void],
    ) -> NDArray[np.float32]:
        """[n, F] of ``FEATURES``."""
        moment = requests.moment[candidates.request[at]]
        now = _logarithms(self._counters(requests, candidates, at))
        then = _logarithms(rows["counters"])
        columns = [
            (moment - rows["moment"]) / MILLISECONDS_PER_HOUR,
            (moment - self.known.born[candidates.item[at]]) / MILLISECONDS_PER_HOUR,
            rows["place"],
            *now.T,
            *(now - then).T,
        ]
        return np.stack(columns, axis=1).astype(np.float32)


def _logarithms(counters: NDArray[np.floating]) -> NDArray[np.float64]:
    """[n, C]."""
    engagements, affinity = counters.astype(np.float64).T
    return np.stack([np.log1p(engagements), np.log(np.maximum(affinity, _LEAST))], axis=1)
