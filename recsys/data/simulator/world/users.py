"""The users of a world: latents, what is known of them, and when they open the app and visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from recsys.data.contract.schema import (
    MILLISECONDS_PER_DAY,
    MILLISECONDS_PER_HOUR,
    MILLISECONDS_PER_SECOND,
)
from recsys.data.simulator.block import USERS_PER_BLOCK, generator_of
from recsys.data.simulator.catalogue import Catalogue
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.outcomes import responses
from recsys.data.simulator.population import Population, cell_of, gap_cells, make_population
from recsys.data.simulator.sessions import make_sessions
from recsys.data.simulator.world.config import OpenConfig, WorldConfig
from recsys.data.simulator.world.draws import Stream, codes_in_shares, uniforms, words

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: A visit comes at most this long after its open.
LONGEST_DELAY_SECONDS = 300


@dataclass(frozen=True)
class Opens:
    """Openings of the app by their time, [opens] each; times are ms since the start of the log.

    Attributes:
        user: index.
        time: of the open.
        surface: code.
        visits: whether the service is visited.
        visit_time: when it is, or would have been.
        notified: whether the app shows a notification of the service.
    """

    user: Integers
    time: Integers
    surface: NDArray[np.int8]
    visits: NDArray[np.bool_]
    visit_time: Integers
    notified: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user)

    def select(self, keep: NDArray[np.bool_] | Integers) -> Opens:
        """Some of them."""
        return Opens(**{name: column[keep] for name, column in vars(self).items()})


class WorldUsers:
    """All users of a world, drawn in the simulator's blocks.

    Attributes:
        region: [U] code; device, network likewise.
        log_activity: [U] ln of the impressions a user is meant to be offered.
        opens: openings of the app.
    """

    def __init__(self, config: SimulatorConfig, world: WorldConfig, catalogue: Catalogue) -> None:
        """Draw them.

        Args:
            config: of the whole time, the days that can be played included.
            world: its part.
            catalogue: the authors and topics.
        """
        self._config, interests = config, config.interests
        users, topics = config.users, config.catalogue.topics
        cells = gap_cells(config) + config.days * 24 // interests.grid_hours
        own, favourites = interests.topics_per_user, interests.favourite_authors
        self._stable = np.empty((users, topics), np.float32)
        self._slot = np.empty((users, topics), np.int8)
        self._short_term = np.empty((users, cells, own), np.float32)
        self._author_slot = np.zeros((users, config.catalogue.authors), np.uint16)
        self._author = np.zeros((users, favourites + 1), np.float32)
        self._propensity = np.empty((users, len(responses(config))), np.float32)
        self.log_activity = np.empty(users, np.float32)
        self.region, self.device, self.network = (np.empty(users, np.int8) for _ in range(3))
        opens = []
        for block, first in enumerate(range(0, users, USERS_PER_BLOCK)):
            count = min(USERS_PER_BLOCK, users - first)
            rng = generator_of(config, block + 1)
            population = make_population(config, catalogue, count, rng)
            self._keep(population, first)
            self._first_cell = population.first_cell
            chosen = slice(first, first + count)
            for codes, shares in (
                (self.region, world.regions.shares),
                (self.device, world.opens.device_shares),
                (self.network, world.opens.network_shares),
            ):
                codes[chosen] = codes_in_shares(rng, shares, count)
            opens.append(_opens(config, world.opens, population, first, rng))
        together = Opens(**{n: np.concatenate([vars(o)[n] for o in opens]) for n in vars(opens[0])})
        self.opens = together.select(np.argsort(together.visit_time, kind="stable"))

    def __len__(self) -> int:
        return len(self.region)

    def interest(self, user: Integers, topic: NDArray[np.int32], time: Integers) -> Floats:
        """Stable and short-term affinity to a topic at a moment."""
        slot = self._slot[user, topic]
        cell = cell_of(time, self._config) - self._first_cell
        short_term = self._short_term[user, cell, np.maximum(slot, 0)]
        return self._stable[user, topic] + np.where(slot >= 0, short_term, np.float32(0))

    def author_affinity(self, user: Integers, author: NDArray[np.int32]) -> Floats:
        """Affinity to an author, 0 but for favourites."""
        return self._author[user, self._author_slot[user, author]]

    def propensity(self, user: Integers, response: int) -> Floats:
        """The user's offset of one response."""
        return self._propensity[user, response]

    def _keep(self, population: Population, first: int) -> None:
        count = len(population.impressions)
        chosen = slice(first, first + count)
        self._stable[chosen], self._slot[chosen] = population.stable, population.slot
        self._short_term[chosen] = population.short_term
        self._propensity[chosen] = population.propensity
        self.log_activity[chosen] = np.log(population.impressions)
        favourites = population.favourites.astype(np.int64)
        rows = np.arange(count)[:, None]
        places = np.arange(1, favourites.shape[1] + 1, dtype=np.uint16)
        np.put_along_axis(self._author_slot[chosen], favourites, places[None, :], axis=1)
        self._author[chosen, 1:] = population.author_affinity[rows, favourites]


def _opens(
    config: SimulatorConfig,
    opens: OpenConfig,
    population: Population,
    first: int,
    rng: np.random.Generator,
) -> Opens:
    """The opens of a block; one too soon after another is left out."""
    sessions = make_sessions(config, population, rng)
    users = len(population.impressions)
    own_logit = rng.normal(opens.visit_logit, opens.visit_sd, users)
    favourite_hour = rng.uniform(0, 24, users)
    hour = sessions.start % MILLISECONDS_PER_DAY / MILLISECONDS_PER_HOUR
    phase = 2 * np.pi * (hour - favourite_hour[sessions.user]) / 24
    user = sessions.user + first
    event = words(config.seed, Stream.NOTIFICATION, user, sessions.start)
    notified = uniforms(event) < opens.notification_share
    logit = own_logit[sessions.user] + opens.habit * np.cos(phase)
    logit = logit + opens.notification_logit * notified
    visits = rng.random(len(logit)) < expit(logit)
    delay = np.minimum(rng.exponential(opens.delay_seconds, len(logit)), LONGEST_DELAY_SECONDS)
    visit_time = sessions.start + (delay * MILLISECONDS_PER_SECOND).astype(np.int64)
    pause = opens.pause_minutes * 60 * MILLISECONDS_PER_SECOND
    soon = (np.diff(sessions.start, prepend=0) < pause) & (np.diff(sessions.user, prepend=-1) == 0)
    found = Opens(user, sessions.start, sessions.surface, visits, visit_time, notified)
    return found.select(~soon)
