"""A small funnel over tables of drawn numbers, for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.serving.funnel.candidates import Offers, Requests, Share
from recsys.serving.funnel.funnel import Funnel, Scoring, Supply, Valuing
from recsys.serving.funnel.rerank import Apart, RerankConfig
from recsys.serving.funnel.stages import AtLeast, NotBy, SameAs, Seen, TooOld
from recsys.serving.funnel.value import parse_value

ITEMS = 40
RNG = np.random.default_rng(0)
APPEAL = RNG.random((50, ITEMS)).astype(np.float32)
AUTHOR = RNG.integers(0, 6, ITEMS)
INTEGRITY = RNG.random(ITEMS)
REGION = RNG.integers(0, 3, ITEMS)
BORN = RNG.integers(0, 10, ITEMS) * 3_600_000
SEEN = RNG.random((50, ITEMS)) < 0.2


@dataclass
class Everything:
    """A source of the items from ``first`` on, in their order."""

    first: int
    name: str

    def find(self, requests: Requests) -> Offers:
        items = np.tile(np.arange(self.first, ITEMS), len(requests))
        lengths = np.full(len(requests), ITEMS - self.first)
        return Offers(lengths, items, np.zeros(len(items), np.float32))


@dataclass
class Appeal:
    """[n, 2] of a table, or its first column."""

    tasks: int
    name: str = "appeal"

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        like = APPEAL[np.repeat(requests.user, lengths), item]
        return like if self.tasks == 1 else np.stack([like, 1 - like], axis=1)


class SeenTable:
    def seen(
        self, user: NDArray[np.int64], moment: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        return SEEN[user, item]


@dataclass
class Broken:
    """A stage that fails."""

    error: Exception
    name: str = "broken"

    def find(self, requests: Requests) -> Offers:
        raise self.error

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        raise self.error

    def keep(self, requests: Requests, candidates: object) -> NDArray[np.bool_]:
        raise self.error


def requests(users: list[int]) -> Requests:
    user = np.array(users, np.int64)
    moment = np.full(len(user), 8 * 3_600_000)
    return Requests(np.arange(len(user)), user, moment, {"region": user % 3})


def funnel() -> Funnel:
    return Funnel(
        supplies=[
            Supply(Everything(0, "all"), Share(30)),
            Supply(Everything(20, "late half"), Share(15, 2.0)),
        ],
        limit=34,
        filters=[
            Seen(SeenTable()),
            AtLeast(INTEGRITY, 0.1, "integrity"),
            SameAs(REGION, "region"),
            TooOld(BORN, 7.0),
            NotBy.of(AUTHOR, {1: [2, 3], 4: [5]}),
        ],
        first=Scoring(Appeal(1), 30),
        second=Scoring(Appeal(2), 8),
        value=Valuing(parse_value("p(like) - 0.1 * p(hide)", ["like", "hide"])),
        rules=RerankConfig(apart=[Apart("author", 2)]),
        columns={"author": AUTHOR},
    )
