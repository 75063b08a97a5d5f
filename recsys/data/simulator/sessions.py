"""When a block of users comes, and which items the recommender that made the log shows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator.catalogue import TOPIC_TABLE_SIZE, Catalogue
from recsys.data.simulator.config import HOURS_PER_DAY, SimulatorConfig
from recsys.data.simulator.population import Population, cell_of, gap_cells

Integers = NDArray[np.int64]

#: Sessions are drawn with this many standard deviations of their length, and this many sessions,
#: to spare: practically always enough for the impressions meant.
SPARE_DEVIATIONS = 4
SPARE_SESSIONS = 6


@dataclass(frozen=True)
class Sessions:
    """Sessions sorted by user and start, requests within sessions.

    Attributes:
        user: [sessions] position of the user in the block.
        start: [sessions] ms since the start of the log; the moment that decides short-term
            interest and item age.
        surface: [sessions] code.
        request_session: [requests] the session of each request, rising.
        request_items: [requests] number of items.
    """

    user: Integers
    start: Integers
    surface: NDArray[np.int8]
    request_session: Integers
    request_items: Integers


def make_sessions(
    config: SimulatorConfig, population: Population, rng: np.random.Generator
) -> Sessions:
    """Draw sessions until every user has the impressions meant for them; the last one is cut."""
    s = config.sessions
    per_session = s.requests_per_session * (s.min_items + s.max_items) / 2
    needed = population.impressions / per_session
    counts = np.ceil(needed + SPARE_DEVIATIONS * np.sqrt(needed)) + SPARE_SESSIONS
    user = np.repeat(np.arange(len(counts)), counts.astype(np.int64))
    requests = rng.geometric(1 / s.requests_per_session, len(user))
    session = np.repeat(np.arange(len(user)), requests)
    items = rng.integers(s.min_items, s.max_items + 1, len(session))

    # Cut every user's impressions at the number meant.
    total = np.cumsum(items)
    request_user = user[session]
    first = np.searchsorted(request_user, np.arange(len(counts)))
    shown_before = total - items - (total - items)[first][request_user]
    items = np.clip(population.impressions[request_user] - shown_before, 0, items)
    session, items = session[items > 0], items[items > 0]

    # Renumber the sessions that are left by user and start.
    kept, session = np.unique(session, return_inverse=True)
    user = user[kept]
    start = _session_starts(config, len(user), rng)
    surface_shares = np.array(list(s.surface_shares.values()))
    surface = rng.choice(len(surface_shares), len(user), p=surface_shares / surface_shares.sum())
    order = np.lexsort((start, user))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    by_session = np.argsort(rank[session], kind="stable")
    return Sessions(
        user=user[order],
        start=start[order],
        surface=surface[order].astype(np.int8),
        request_session=rank[session][by_session],
        request_items=items[by_session],
    )


def _session_starts(config: SimulatorConfig, count: int, rng: np.random.Generator) -> Integers:
    """A uniform day, an hour by its share, a uniform moment in the hour."""
    shares = np.array([config.sessions.hour_shares[hour] for hour in range(HOURS_PER_DAY)])
    day = rng.integers(0, config.days, count)
    hour = rng.choice(HOURS_PER_DAY, count, p=shares / shares.sum())
    within = rng.integers(0, MILLISECONDS_PER_HOUR, count)
    return day * MILLISECONDS_PER_DAY + hour * MILLISECONDS_PER_HOUR + within


def choose_items(
    config: SimulatorConfig,
    catalogue: Catalogue,
    population: Population,
    user: Integers,
    start: Integers,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """One item per impression, [impressions].

    The recommender knows the users as they were one gap ago: what it shows carries no news about
    the latents of the last 24 hours, which keeps the probabilities within reach exact.

    Args:
        config: the simulator's configuration.
        catalogue: what can be shown.
        population: whom it is shown to.
        user: [impressions] position in the block.
        start: [impressions] start of the session, ms since the start of the log.
        rng: generator of the block.
    """
    exposure, count = config.exposure, len(user)
    source = rng.random(count, dtype=np.float32)
    draw = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    author = catalogue.popular_authors[draw % len(catalogue.popular_authors)]

    from_favourite = source < exposure.author_share
    rows = np.flatnonzero(from_favourite)
    favourites = population.favourites
    author[rows] = favourites[user[rows], draw[rows] % favourites.shape[1]]

    rows = np.flatnonzero(~from_favourite & (source < exposure.author_share + exposure.topic_share))
    topic = _own_topic(config, population, user[rows], start[rows], rng)
    author[rows] = catalogue.topic_authors[topic, draw[rows] % TOPIC_TABLE_SIZE]
    return _item_at_age(config, catalogue, author, start, rng)


def _own_topic(
    config: SimulatorConfig,
    population: Population,
    user: Integers,
    start: Integers,
    rng: np.random.Generator,
) -> Integers:
    """A topic of the user's own by softmax over the affinities of a gap ago, [impressions]."""
    users, cells, own = population.short_term.shape
    stable = np.take_along_axis(population.stable, population.own_topics, axis=1)
    known = cells - gap_cells(config)
    affinity = stable[:, None, :] + population.short_term[:, :known]  # [U, G, J], a gap ago
    weights = np.exp(np.float32(config.exposure.sharpness) * affinity)
    cumulative = np.cumsum(weights, axis=2).reshape(users * known, own)
    profile = cumulative[user * known + cell_of(start, config)]  # [impressions, J]
    threshold = rng.random(len(user), dtype=np.float32) * profile[:, -1]
    choice = np.minimum((profile < threshold[:, None]).sum(axis=1), own - 1)
    return population.own_topics[user, choice]


def _item_at_age(
    config: SimulatorConfig,
    catalogue: Catalogue,
    author: NDArray[np.int32],
    start: Integers,
    rng: np.random.Generator,
) -> Integers:
    """The author's item of a drawn age: fresh for most impressions, lasting for the others.

    Ages are exponential, truncated at the age of the oldest items.
    """
    c, count = config.catalogue, len(author)
    fresh = rng.random(count, dtype=np.float32) < c.fresh_share
    mean_age = np.where(fresh, np.float32(c.fresh_days), np.float32(c.lasting_days))
    oldest = start / MILLISECONDS_PER_DAY + c.warm_up_days
    within = -np.expm1(-oldest.astype(np.float32) / mean_age)
    age_days = -np.log1p(-within * rng.random(count, dtype=np.float32)) * mean_age
    day = oldest - age_days
    first = catalogue.author_items[author]
    items = catalogue.author_items[author + 1] - first
    slot = (day * (items / (config.days + c.warm_up_days))).astype(np.int64)
    item = first + np.clip(slot, 0, items - 1)
    not_out = catalogue.item_published[item] > start
    return item - not_out  # the slot before it is out for certain
