"""What the stages of a funnel are, and the filters that look at columns of items.

Legend: B requests, N candidates over all requests, n those that a stage is asked about, V items,
K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.serving.funnel.candidates import Candidates, Offers, Requests


class Source(Protocol):
    """Finds candidates."""

    @property
    def name(self) -> str:
        """What it is called in a funnel."""
        ...

    def find(self, requests: Requests) -> Offers:
        """Candidates of B requests, each request's best first."""
        ...


class Filter(Protocol):
    """Leaves candidates out."""

    @property
    def name(self) -> str:
        """What it is called in a funnel."""
        ...

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """[N] which of the candidates stay; of those that ended before it does not matter."""
        ...


class Scorer(Protocol):
    """Says what candidates are worth, or how likely each action is.

    A candidate's score must not follow from the candidates beside it.
    """

    @property
    def name(self) -> str:
        """What it is called in a funnel."""
        ...

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n], or [n, K], of the items [n] of B requests, ``lengths`` [B] of each."""
        ...


class History(Protocol):
    """What users have seen."""

    def seen(
        self, user: NDArray[np.int64], moment: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """[N] whether a user was shown an item before a moment."""
        ...


@dataclass(frozen=True, eq=False)
class Seen:
    """Leaves out what a user has seen."""

    history: History
    name: str = "seen"

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """Those that were never shown to the user."""
        of = candidates.request
        return ~self.history.seen(requests.user[of], requests.moment[of], candidates.item)


@dataclass(frozen=True, eq=False)
class TooOld:
    """Leaves out items that are there for longer than some hours, or not yet.

    Attributes:
        born: [V] ms since when each item is there.
        hours: oldest age.
    """

    born: NDArray[np.int64]
    hours: float
    name: str = "age"

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """Those of the right age."""
        age = requests.moment[candidates.request] - self.born[candidates.item]
        return (age >= 0) & (age <= self.hours * MILLISECONDS_PER_HOUR)


@dataclass(frozen=True, eq=False)
class AtLeast:
    """Leaves out items of which a number, such as their integrity, is too small or unknown.

    Attributes:
        column: [V].
        least: smallest number that is kept.
        name: of the column.
    """

    column: NDArray[np.floating]
    least: float
    name: str

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """Those that have enough of it; NaN is not enough."""
        return self.column[candidates.item] >= self.least


@dataclass(frozen=True, eq=False)
class SameAs:
    """Leaves out items that are for others, by a column of items and users such as the region.

    Attributes:
        column: [V]; items with 0 are for everybody.
        name: of the column; users with 0 get items that are for everybody.
    """

    column: NDArray[np.integer]
    name: str

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """Those for the user, or for everybody."""
        of_user = column_of(requests, self.name)[candidates.request]
        of_item = self.column[candidates.item]
        return (of_item == 0) | (of_item == of_user)


@dataclass(frozen=True, eq=False)
class NotBy:
    """Leaves out items of authors whom a user does not want, or is.

    Attributes:
        author: [V] of the items.
        pairs: sorted keys, user * ``stride`` + author, of what is left out.
        stride: more than any author.
    """

    author: NDArray[np.integer]
    pairs: NDArray[np.int64]
    stride: int
    name: str = "author"

    @classmethod
    def of(
        cls,
        author: NDArray[np.integer],
        pairs: Mapping[int, list[int]],
        name: str = "author",
    ) -> NotBy:
        """Of users' lists of authors."""
        most = max((one for of_user in pairs.values() for one in of_user), default=0)
        stride = max(int(author.max(initial=0)), most) + 1
        keys = [user * stride + one for user, of_user in pairs.items() for one in of_user]
        return cls(author, np.sort(np.array(keys, np.int64)), stride, name)

    def keep(self, requests: Requests, candidates: Candidates) -> NDArray[np.bool_]:
        """Those by others; an unknown author (0) is nobody's."""
        author = self.author[candidates.item].astype(np.int64)
        key = requests.user[candidates.request] * self.stride + author
        return ~np.isin(key, self.pairs) | (author == 0)


def column_of(requests: Requests, name: str) -> NDArray:
    """[B] a column of the users.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in requests.columns:
        raise ConfigError(
            f"Users have no column {name}; they have {', '.join(requests.columns) or 'none'}."
        )
    return requests.columns[name]
