"""The steps of recommending, as stages that are put together: embed, restrict, search, keep.

A stage is a small class with one method, which takes the step's users first, and a ``name``. What
a stage is to know besides (a log, an index, a threshold) it is made with, so that a stage that is
not wanted is one that is not in the pipeline.

Legend: B users of a step, W width of an embedding, S slots of an index, C candidates per user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.index.faiss.search import NONE, Found
from recsys.serving.given_events import GivenEvents


@dataclass(frozen=True, eq=False)
class StepUsers:
    """The users of a step.

    Attributes:
        raw: [B] raw ids, as the caller gave them.
        indices: [B] of the data set; 0 for users that are not in its log.
        moment: ms; what is known of them ends strictly before it.
        given: events that some of them have instead of those in the log.
    """

    raw: pl.Series
    indices: NDArray[np.int64]
    moment: int
    given: GivenEvents | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, positions: NDArray[np.int64]) -> StepUsers:
        """Those of them at some positions."""
        return replace(self, raw=self.raw[positions], indices=self.indices[positions])

    def only(self, chosen: NDArray[np.bool_]) -> StepUsers:
        """Those of them that ``chosen`` [B] says."""
        return self.at(np.flatnonzero(chosen))


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a tower makes of users.

    Attributes:
        embedding: [B, W]; 0 where the tower knows nothing of a user.
        events: [B] how many events each was made from.
    """

    embedding: NDArray[np.float32]
    events: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Restriction:
    """Which items a search may give; the search makes up for those it may not.

    Attributes:
        eligible: [S] bool, slots that anybody may get; None for all.
        exclude: [B] per user the slots he is not to get; None for no exclusions.
    """

    eligible: NDArray[np.bool_] | None = None
    exclude: Sequence[NDArray[np.int64]] | None = None

    @classmethod
    def all_of(cls, several: Sequence[Restriction]) -> Self:
        """What obeys every one of ``several``."""
        masks = [one.eligible for one in several if one.eligible is not None]
        lists = [one.exclude for one in several if one.exclude is not None]
        return cls(
            np.logical_and.reduce(masks) if masks else None,
            [np.concatenate(of_user) for of_user in zip(*lists, strict=True)] if lists else None,
        )


class Embedder(Protocol):
    """Says what users are like."""

    name: str

    def embed(self, users: StepUsers) -> Embedded:
        """Embeddings [B, W] of B users."""
        ...


class SearchFilter(Protocol):
    """Leaves items out before the search, so that as many others are found instead."""

    name: str

    def restrict(self, users: StepUsers) -> Restriction:
        """What each of B users may get."""
        ...


class Source(Protocol):
    """Finds items."""

    name: str

    def find(
        self, users: StepUsers, embedding: NDArray[np.float32], restriction: Restriction
    ) -> Found:
        """Items [B, C] for B users with embeddings [B, W], none of them 0."""
        ...


class CandidateFilter(Protocol):
    """Leaves items out after the search; nothing takes their place."""

    name: str

    def keep(self, users: StepUsers, found: Found) -> NDArray[np.bool_]:
        """Which of the candidates [B, C] stay; of places without an item it does not matter."""
        ...


@dataclass(frozen=True, eq=False)
class Recommended:
    """What a pipeline found.

    Attributes:
        users: the B of the step's users who have an embedding.
        events: [B] how many events each embedding was made from.
        found: [B, C] items, each user's best first, and nothing between them.
    """

    users: StepUsers
    events: NDArray[np.int64]
    found: Found


@dataclass(frozen=True, eq=False)
class Pipeline:
    """Stages, in the order in which they act.

    Attributes:
        embedder: of users; those it knows nothing of are searched nothing for.
        before: filters whose restrictions all hold for the search.
        source: the search.
        after: filters of what it found, one after the other.
    """

    embedder: Embedder
    before: Sequence[SearchFilter]
    source: Source
    after: Sequence[CandidateFilter] = ()

    def run(self, users: StepUsers) -> Recommended:
        """Items for the users of a step."""
        embedded = self.embedder.embed(users)
        there = np.linalg.norm(embedded.embedding, axis=1) > 0
        users = users.only(there)
        restriction = Restriction.all_of([stage.restrict(users) for stage in self.before])
        found = self.source.find(users, embedded.embedding[there], restriction)
        for stage in self.after:
            found = _only(found, stage.keep(users, found))
        return Recommended(users, embedded.events[there], found)


def _only(found: Found, keep: NDArray[np.bool_]) -> Found:
    """The candidates that are kept [B, C], moved to the front in their order."""
    keep = keep & (found.slot != NONE)
    order = np.argsort(~keep, axis=1, kind="stable")
    there = np.take_along_axis(keep, order, axis=1)
    slot = np.take_along_axis(found.slot, order, axis=1)
    score = np.take_along_axis(found.score, order, axis=1)
    return Found(np.where(there, slot, NONE), np.where(there, score, np.float32(np.nan)))
