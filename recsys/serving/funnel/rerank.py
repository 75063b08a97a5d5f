"""The list of a request: of the most valuable candidates one place after the other, under rules.

The best of what is left is taken for each place: by its value less what the rules take from it.
Rules that forbid are let go for a place at which nothing else is left, since a list that is too
short is worse than one that repeats an author.

Legend: B requests, C candidates of a request (padded), W width of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recsys.core.bounds import Finite, Number, Settings
from recsys.core.errors import ConfigError

_NONE = -1
_FORBIDDEN = -np.inf


@dataclass(frozen=True)
class Apart(Settings):
    """What two items of a list may not share when they are near.

    Attributes:
        column: of the items, such as ``author``; 0 is unknown and shared with nobody.
        places: no two of so many places one after the other have the same.
    """

    column: str = MISSING
    places: Annotated[int, Number(at_least=2)] = 2


@dataclass(frozen=True)
class AtMost(Settings):
    """How much of a list may share something.

    Attributes:
        column: of the items, such as ``topic``; 0 is unknown and shared with nobody.
        share: of the list's places, rounded up.
    """

    column: str = MISSING
    share: Annotated[float, Number(above=0, at_most=1)] = 0.5


@dataclass(frozen=True)
class Downrank(Settings):
    """What an item loses for a property.

    Attributes:
        column: of the items, such as ``integrity``, from 0 to 1.
        below: items below it lose.
        factor: of the value that is left where it is above 0; a value below 0 is divided by it.
    """

    column: str = MISSING
    below: Finite = 0.5
    factor: Annotated[float, Number(above=0, at_most=1)] = 0.5


@dataclass(frozen=True)
class RerankConfig(Settings):
    """Rules of a list.

    Attributes:
        downrank: items that lose some of their value.
        apart: what neighbours may not share.
        at_most: what the list may not be full of.
        relevance: share of the value in maximal marginal relevance (Carbonell and Goldstein 1998);
            the rest is the largest cosine with an item above. 1 leaves likeness out.
    """

    downrank: list[Downrank] = field(default_factory=list)
    apart: list[Apart] = field(default_factory=list)
    at_most: list[AtMost] = field(default_factory=list)
    relevance: Annotated[float, Number(above=0, at_most=1)] = 1.0


@dataclass(frozen=True, eq=False)
class Ranked:
    """Lists.

    Attributes:
        place: [B, k] the candidate (0 to C) of each place, −1 for none.
        let_go: [B, k] whether a rule had to be let go there.
    """

    place: NDArray[np.int64]
    let_go: NDArray[np.bool_]


def rerank(
    config: RerankConfig,
    value: NDArray[np.float64],
    columns: Mapping[str, NDArray],
    k: int,
    embedding: NDArray[np.float32] | None = None,
) -> Ranked:
    """Put candidates in lists.

    Args:
        config: the rules.
        value: [B, C], NaN for no candidate; of equal ones the first comes first.
        columns: [B, C] of the candidates, by name.
        k: places of a list.
        embedding: [B, C, W] of the candidates, of length 1, where likeness counts.

    Raises:
        ConfigError: a rule is about a column that is not there, or likeness counts and nothing
            says how alike items are.

    Example: candidates of value 5, 4, 3, the first two by one author, with
    ``apart=[{column: author, places: 2}]``: the list is the first, the third, the second.
    """
    _check(config, columns, embedding)
    worth = _downranked(config, value, columns)
    requests, number = worth.shape
    rows = np.arange(requests)
    place = np.full((requests, k), _NONE, np.int64)
    let_go = np.zeros((requests, k), np.bool_)
    if number == 0:
        return Ranked(place, let_go)
    left = ~np.isnan(worth)
    relevance = _unit_range(worth) if config.relevance < 1 else worth
    nearest = np.full(worth.shape, -1.0)  # the smallest cosine
    for at in range(k):
        score = relevance
        if config.relevance < 1 and at > 0:
            score = config.relevance * relevance - (1 - config.relevance) * nearest
        score = np.where(left, score, _FORBIDDEN)
        obeying = np.where(_forbidden(config, columns, left.shape, place, at, k), _FORBIDDEN, score)
        none_obeys = np.isneginf(obeying).min(axis=1)
        chosen = np.argmax(np.where(none_obeys[:, None], score, obeying), axis=1)
        there = left[rows, chosen]
        place[:, at] = np.where(there, chosen, _NONE)
        let_go[:, at] = none_obeys & there
        left[rows, chosen] = False
        if embedding is not None and config.relevance < 1:
            # not a matrix product, whose sums may follow from who else is there
            likeness = (embedding * embedding[rows, chosen][:, None]).sum(axis=2)
            nearest = np.where(there[:, None], np.maximum(nearest, likeness), nearest)
    return Ranked(place, let_go)


def _check(
    config: RerankConfig, columns: Mapping[str, NDArray], embedding: NDArray[np.float32] | None
) -> None:
    rules: list[Downrank | Apart | AtMost] = [*config.downrank, *config.apart, *config.at_most]
    for column in (rule.column for rule in rules):
        if column not in columns:
            raise ConfigError(
                f"rerank: items have no column {column}; they have {', '.join(columns) or 'none'}."
            )
    if config.relevance < 1 and embedding is None:
        raise ConfigError(
            f"rerank.relevance={config.relevance:g}: nothing says how alike items are; name the "
            "tower or index whose embeddings do, or take relevance=1."
        )


def _downranked(
    config: RerankConfig, value: NDArray[np.float64], columns: Mapping[str, NDArray]
) -> NDArray[np.float64]:
    worth = value.astype(np.float64)
    for rule in config.downrank:
        factor = np.where(worth > 0, rule.factor, 1 / rule.factor)
        worth = np.where(columns[rule.column] < rule.below, worth * factor, worth)
    return worth


def _unit_range(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """[B, C] from 0 for the least valuable candidate of a request to 1 for the most valuable."""
    known = ~np.isnan(worth)
    low = np.where(known, worth, np.inf).min(axis=1, keepdims=True)
    high = np.where(known, worth, -np.inf).max(axis=1, keepdims=True)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(known, (worth - low) / spread, np.nan)


def _forbidden(
    config: RerankConfig,
    columns: Mapping[str, NDArray],
    shape: tuple[int, int],
    place: NDArray[np.int64],
    at: int,
    k: int,
) -> NDArray[np.bool_]:
    """[B, C] which candidates a rule forbids at a place, given those before it."""
    found = np.zeros(shape, np.bool_)
    for apart in config.apart:
        before = place[:, max(at - apart.places + 1, 0) : at]
        found |= _shared(columns[apart.column], before) > 0
    for at_most in config.at_most:
        limit = math.ceil(at_most.share * k)
        found |= _shared(columns[at_most.column], place[:, :at]) >= limit
    return found


def _shared(column: NDArray, before: NDArray[np.int64]) -> NDArray[np.int64]:
    """[B, C] with how many of some places [B, n] each candidate shares a value that is not 0."""
    taken = np.take_along_axis(column, np.maximum(before, 0), axis=1)
    taken = np.where(before == _NONE, 0, taken)
    same = (column[:, :, None] == taken[:, None, :]) & (taken[:, None, :] != 0)
    return same.sum(axis=2)
