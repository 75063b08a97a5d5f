"""The latents of a block of users: stable interests, short-term interests and propensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.simulator.catalogue import TOPIC_TABLE_SIZE, Catalogue
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.outcomes import responses

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Population:
    """A block of U users over G cells of the short-term grid.

    Attributes:
        impressions: [U] impressions each user is meant to have.
        own_topics: [U, J] the topics with a pronounced interest.
        slot: [U, topics] position of a topic among the user's own, -1 where it is not.
        stable: [U, topics] stable affinity.
        short_term: [U, G, J] deviation of the own topics' affinity from the stable one.
        author_affinity: [U, authors], 0 but for favourites.
        favourites: [U, A] the favourite authors.
        propensity: [U, responses] offsets of the logits, then of ln(dwell).
        first_cell: number of the first cell of the grid; cell 0 starts with the log.
    """

    impressions: NDArray[np.int64]
    own_topics: NDArray[np.int64]
    slot: NDArray[np.int8]
    stable: Floats
    short_term: Floats
    author_affinity: Floats
    favourites: NDArray[np.int32]
    propensity: Floats
    first_cell: int


def cell_of(time_ms: NDArray[np.int64], config: SimulatorConfig) -> NDArray[np.int64]:
    """The cell of the short-term grid that holds a moment (ms since the start of the log)."""
    return time_ms // (config.interests.grid_hours * MILLISECONDS_PER_HOUR)


def survival(config: SimulatorConfig) -> float:
    """Share of a short-term interest that is left one grid step later: exp(-step / constant)."""
    return float(np.exp(-config.interests.grid_hours / config.interests.short_term_hours))


def draw_impressions(
    config: SimulatorConfig, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Impressions per user: the scaled quantile function at uniform levels, [count]."""
    activity = config.activity
    levels, quantiles = list(activity.quantiles), list(activity.quantiles.values())
    drawn = np.interp(rng.random(count), levels, quantiles)
    return np.clip(np.round(drawn * activity.scale), 1, activity.max_impressions).astype(np.int64)


def make_population(
    config: SimulatorConfig, catalogue: Catalogue, count: int, rng: np.random.Generator
) -> Population:
    """Draw the latents of ``count`` users."""
    interests = config.interests
    topics, own = config.catalogue.topics, interests.topics_per_user
    impressions = draw_impressions(config, count, rng)

    # Gumbel top-J: own topics without replacement, popular ones more likely.
    keys = 0.5 * np.log(catalogue.topic_popularity) + rng.gumbel(size=(count, topics))
    own_topics = np.argpartition(-keys, own, axis=1)[:, :own]
    slot = np.full((count, topics), -1, np.int8)
    np.put_along_axis(slot, own_topics, np.arange(own, dtype=np.int8)[None, :], axis=1)
    stable = rng.normal(0, interests.other_sd, (count, topics)).astype(np.float32)
    pronounced = rng.normal(interests.stable_mean, interests.stable_sd, (count, own))
    np.put_along_axis(stable, own_topics, pronounced.astype(np.float32), axis=1)

    favourite_topic = rng.integers(0, own, (count, interests.favourite_authors))
    table_position = rng.integers(0, TOPIC_TABLE_SIZE, favourite_topic.shape)
    favourites = catalogue.topic_authors[
        np.take_along_axis(own_topics, favourite_topic, axis=1), table_position
    ]
    affinity = np.zeros((count, config.catalogue.authors), np.float32)
    drawn = rng.normal(interests.author_mean, interests.author_sd, favourites.shape)
    np.put_along_axis(affinity, favourites.astype(np.int64), drawn.astype(np.float32), axis=1)

    sds = np.array([response.user_sd for response in responses(config)], np.float32)
    propensity = rng.standard_normal((count, len(sds)), dtype=np.float32) * sds
    return Population(
        impressions=impressions,
        own_topics=own_topics,
        slot=slot,
        stable=stable,
        short_term=_short_term(config, count, rng),
        author_affinity=affinity,
        favourites=favourites,
        propensity=propensity,
        first_cell=-gap_cells(config),
    )


def gap_cells(config: SimulatorConfig) -> int:
    """Cells of the short-term grid in one gap."""
    return config.gap_hours // config.interests.grid_hours


def _short_term(config: SimulatorConfig, count: int, rng: np.random.Generator) -> Floats:
    """A stationary Ornstein-Uhlenbeck process at the grid's moments, [U, G, J]."""
    interests = config.interests
    cells = gap_cells(config) + config.days * 24 // interests.grid_hours
    kept = survival(config)
    step = np.float32(interests.short_term_sd * np.sqrt(1 - kept**2))
    path = rng.standard_normal((cells, count, interests.topics_per_user), dtype=np.float32)
    path[0] *= np.float32(interests.short_term_sd)
    path[1:] *= step
    for cell in range(1, cells):
        path[cell] += np.float32(kept) * path[cell - 1]
    return np.ascontiguousarray(path.swapaxes(0, 1))
