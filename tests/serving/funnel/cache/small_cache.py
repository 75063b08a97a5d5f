"""A cached funnel over tables whose scores change with the hour, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.cache.rescore import Rescore, stale
from recsys.serving.funnel.cache.stage import Cache
from recsys.serving.funnel.cache.stores import MemoryStore, row_type
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.funnel import Funnel, Scoring
from tests.serving.funnel.small_funnel import BORN, ITEMS, SEEN, funnel

HOUR = 3_600_000
ROW = row_type(2)


@dataclass
class Counting:
    """What is counted, by the hour that the test says."""

    hour: float = 0.0
    born: NDArray[np.int64] = field(default_factory=lambda: BORN)
    alive: NDArray[np.int64] = field(default_factory=lambda: np.arange(ITEMS))

    def engagements(self, item: NDArray[np.int64]) -> NDArray[np.float64]:
        return item + self.hour

    def affinity(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float64]:
        return (1 + user) / (1 + item + self.hour)

    def seen(
        self, user: NDArray[np.int64], moment: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        return SEEN[user, item]


@dataclass
class Hourly:
    """Scores that follow from user, item and hour; it notes whom it was asked about."""

    asked: list[tuple[int, int]] = field(default_factory=list)
    name: str = "hourly"

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        user, hour = (np.repeat(of, lengths) for of in (requests.user, requests.moment // HOUR))
        self.asked += zip(user.tolist(), item.tolist(), strict=True)
        like = ((user * 7 + item * 13 + hour * 5) % 31) / 31
        return np.stack([like, 1 - like], axis=1)


def asked(users: list[int], hour: float) -> Requests:
    user = np.array(users, np.int64)
    moment = np.full(len(user), round(hour * HOUR))
    return Requests(np.arange(len(user)), user, moment, {"region": user % 3})


def cached_funnel(
    rescore: Rescore = stale, hours: float = 3, sample_share: float = 0.0
) -> tuple[Funnel, Hourly, Counting]:
    known, scorer = Counting(), Hourly()
    feed = FeedState(MemoryStore(), ROW, "one", round(hours * HOUR), 10 * ITEMS)
    cache = Cache(feed, known, rescore, sample_share)
    plain = funnel()
    filters = [one for one in plain.filters if one.name == "seen"]
    return (
        replace(plain, second=Scoring(scorer, 8), cache=cache, filters=filters),
        scorer,
        known,
    )
