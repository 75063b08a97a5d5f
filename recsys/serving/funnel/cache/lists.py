"""The simple cache of a service: a user's last list again, for a time.

Legend: B requests, N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.candidates import Offers, Requests
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.stages import Source


@dataclass(frozen=True, eq=False)
class LastList:
    """A source of what the second stage scored at the user's last request that it scored for.

    Attributes:
        feed: what was scored; a list is there within T1.
        known: what the user has seen since stays out, and what cannot be shown any more.
        unseen: a list with fewer items that are left is none.
        name: of the source.
    """

    feed: FeedState
    known: Knowledge
    unseen: int
    name: str = "last_list"

    def find(self, requests: Requests) -> Offers:
        """The whole list, or nothing."""
        entries = self.feed.entries(requests)
        owner = np.repeat(np.arange(len(requests)), entries.lengths)
        newest = np.full(len(requests), np.iinfo(np.int64).min)
        np.maximum.at(newest, owner, entries.rows["moment"])
        kept = entries.rows["moment"] == newest[owner]
        owner, item = owner[kept], entries.rows["item"][kept].astype(np.int64)
        left = ~self.known.seen(requests.user[owner], requests.moment[owner], item)
        left &= np.isin(item, self.known.alive)
        owner, item = owner[left], item[left]
        lengths = np.bincount(owner, minlength=len(requests))
        enough = lengths >= self.unseen
        item = item[enough[owner]]
        return Offers(np.where(enough, lengths, 0), item, np.zeros(len(item), np.float32))


@dataclass(frozen=True, eq=False)
class WithoutList:
    """Another source, which is asked for those alone who have no last list.

    Attributes:
        source: the other one.
        last: the lists.
    """

    source: Source
    last: LastList

    @property
    def name(self) -> str:
        """That of the other one."""
        return self.source.name

    def find(self, requests: Requests) -> Offers:
        """What it finds for them."""
        none = self.last.find(requests).lengths == 0
        if not none.any():
            return Offers.none(len(requests))
        found = self.source.find(requests.only(none))
        lengths: NDArray[np.int64] = np.zeros(len(requests), np.int64)
        lengths[none] = found.lengths
        return Offers(lengths, found.item, found.score)
