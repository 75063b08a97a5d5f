"""The candidates of requests on their way through a funnel.

Legend: B requests, N candidates over all requests (those of a request side by side), S sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.ledger import GAP_HOURS

#: How quickly what a source says later counts less (reciprocal rank fusion, Cormack et al. 2009).
_RANK_OFFSET = 60.0
#: Bits of a candidate's sources.
MOST_SOURCES = 32
#: Hours since a candidate's predictions were made, beside the scores of stages; NaN for now.
GAP = GAP_HOURS
#: Columns with a row per candidate.
_OF_CANDIDATE = ("item", "sources", "fused", "death", "position", "propensity")
#: Of a candidate that no stage has left out.
ALIVE = -1


@dataclass(frozen=True, eq=False)
class Requests:
    """Who asks, and when.

    Attributes:
        number: [B] int64, a number of each request; what is drawn for it follows from that.
        user: [B] int64 user indices; 0 is a user whom the log does not know.
        moment: [B] int64 ms; what is known ends strictly before it.
        columns: of the users by name, [B] each: what groups and rules are told by.
    """

    number: NDArray[np.int64]
    user: NDArray[np.int64]
    moment: NDArray[np.int64]
    columns: Mapping[str, NDArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def only(self, chosen: NDArray | slice) -> Requests:
        """Some of them."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Requests(self.number[chosen], self.user[chosen], self.moment[chosen], columns)


@dataclass(frozen=True, eq=False)
class Offers:
    """What a source finds, each request's best first and no item of it twice.

    Attributes:
        lengths: [B] int64, items of each request.
        item: [N] int64 item indices.
        score: [N] float32, the source's own.
    """

    lengths: NDArray[np.int64]
    item: NDArray[np.int64]
    score: NDArray[np.float32]

    @classmethod
    def none(cls, requests: int) -> Offers:
        """Nothing for so many requests."""
        return cls(np.zeros(requests, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class Share:
    """What part of the candidates a source has.

    Attributes:
        quota: items of a request that are taken of it, at most.
        weight: how much its ranking counts where candidates are put in order.
    """

    quota: int
    weight: float = 1.0


@dataclass(eq=False)
class Candidates:
    """Candidates and what the stages have said of them; nothing is ever removed.

    Attributes:
        lengths: [B] int64, candidates of each request.
        item: [N] int64, each request's in the order that its sources gave them.
        sources: [N] uint32, a bit for each source that found it.
        fused: [N] what the sources' rankings say together, the higher the better.
        death: [N] int16, number of the stage that left it out, :data:`ALIVE` for none.
        scores: by stage what it said, [N] or [N, K]; NaN where it was not asked. With a cache,
            :data:`GAP` is among them.
        position: [N] int32, place in the list from 1; 0 for none.
        propensity: [N] float32, probability with which it was drawn for its place; NaN where
            nothing was drawn.
    """

    lengths: NDArray[np.int64]
    item: NDArray[np.int64]
    sources: NDArray[np.uint32]
    fused: NDArray[np.float64]
    death: NDArray[np.int16]
    scores: dict[str, NDArray[np.floating]]
    position: NDArray[np.int32]
    propensity: NDArray[np.float32]

    @cached_property
    def request(self) -> NDArray[np.int64]:
        """[N] the request of each candidate."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """[N] whom no stage has left out."""
        return self.death == ALIVE

    @property
    def cached(self) -> NDArray[np.bool_]:
        """[N] whose predictions come from a cache."""
        if GAP not in self.scores:
            return np.zeros(len(self.item), np.bool_)
        return ~np.isnan(self.scores[GAP])

    def listed(self) -> NDArray[np.int64]:
        """[n] the places of the items of one request's list, its first one first."""
        shown = np.flatnonzero(self.position > 0)
        return shown[np.argsort(self.position[shown])]

    def of_request(self, number: int) -> Candidates:
        """Those of one request."""
        end = int(self.lengths[: number + 1].sum())
        rows = slice(end - int(self.lengths[number]), end)
        scores = {name: of[rows] for name, of in self.scores.items()}
        rest = {name: getattr(self, name)[rows] for name in _OF_CANDIDATE}
        return Candidates(self.lengths[number : number + 1], scores=scores, **rest)

    def leave_out(self, which: NDArray[np.bool_], stage: int) -> None:
        """End the way of those of ``which`` [N] that are still in it."""
        self.death[which & self.alive] = stage

    def keep_best(self, score: NDArray[np.floating], number: int, stage: int) -> None:
        """Of each request leave out all but so many of the best that are alive.

        Args:
            score: [N]; equal ones stay in the order of the candidates, NaN is left out.
            number: of candidates.
            stage: that leaves them out.
        """
        self.leave_out(np.isnan(score), stage)
        alive = np.flatnonzero(self.alive)
        request = self.request[alive]
        order = np.lexsort((-score[alive], request))  # stable, so equal ones keep their order
        of_request = np.bincount(request, minlength=len(self.lengths))
        beyond = np.zeros(len(self.item), np.bool_)
        beyond[alive[order[place_of(of_request) >= number]]] = True
        self.leave_out(beyond, stage)


def place_of(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """[N] from 0, the place of each among those of its request, ``lengths`` [B] of each."""
    first = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
    return places


def mix(offers: Sequence[Offers], shares: Sequence[Share], requests: int) -> Candidates:
    """Put what several sources found together; a candidate found twice keeps both sources.

    Candidates are ordered by sum(weight / (60 + rank)) over their sources, equal ones by item.

    Args:
        offers: of S sources.
        shares: of each.
        requests: B.

    Example: of one request a source of weight 1 finds the items 7, 3 and one of weight 2 finds 3
    alone. Item 3 has 1 / 62 + 2 / 61 and comes first, item 7 has 1 / 61.
    """
    request, item, weight, bit = [], [], [], []
    for number, (found, share) in enumerate(zip(offers, shares, strict=True)):
        rank = place_of(found.lengths)
        taken = rank < share.quota
        request.append(np.repeat(np.arange(requests), found.lengths)[taken])
        item.append(found.item[taken])
        weight.append(share.weight / (_RANK_OFFSET + 1 + rank[taken]))
        bit.append(np.full(int(taken.sum()), 1 << number, np.uint32))
    owners = np.concatenate([np.empty(0, np.int64), *request])
    items = np.concatenate([np.empty(0, np.int64), *item])
    stride = int(items.max(initial=0)) + 1
    key, place = np.unique(owners * stride + items, return_inverse=True)
    # added up source by source, so that a request alone has the same bits
    said = np.concatenate([np.empty(0), *weight])
    fused = np.bincount(place, said, minlength=len(key)).astype(np.float64)
    sources = np.zeros(len(key), np.uint32)
    np.bitwise_or.at(sources, place, np.concatenate([np.empty(0, np.uint32), *bit]))
    order = np.lexsort((key % stride, -fused, key // stride))
    return Candidates(
        lengths=np.bincount(key // stride, minlength=requests).astype(np.int64),
        item=(key % stride)[order],
        sources=sources[order],
        fused=fused[order],
        death=np.full(len(key), ALIVE, np.int16),
        scores={},
        position=np.zeros(len(key), np.int32),
        propensity=np.full(len(key), np.nan, np.float32),
    )
