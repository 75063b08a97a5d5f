"""The items of a world: their lives, their drifting appeal, integrity and regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator.catalogue import Catalogue
from recsys.data.simulator.config import SimulatorConfig
from recsys.data.simulator.world.config import WorldConfig
from recsys.data.simulator.world.draws import codes_in_shares

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: A stream of its own below the catalogue's, as the item embeddings have one.
_STREAM = (0, 2)


class WorldItems:
    """What a catalogue's items have in a world. Times are ms since the start of the log.

    Attributes:
        integrity: [items] float32 in [0, 1).
        region: [items] code, the author's.
        published: [items]; expires likewise, both of the moment.
        in_order: [items] indices by publication.
        rank: [items] place in it.
    """

    def __init__(self, config: SimulatorConfig, world: WorldConfig, catalogue: Catalogue) -> None:
        """Draw them; all that is random follows from the seed."""
        seed = np.random.SeedSequence(config.seed, spawn_key=_STREAM)
        rng = np.random.Generator(np.random.SFC64(seed))
        items, life = len(catalogue.item_author), world.life
        self.published = catalogue.item_published
        hours = rng.uniform(life.min_hours, life.max_hours, items)
        self.expires = self.published + np.ceil(hours * MILLISECONDS_PER_HOUR).astype(np.int64)
        is_borderline = rng.random(items) < world.integrity.borderline_share
        low, high = rng.uniform(0, 0.5, items), rng.uniform(0.8, 1, items)
        self.integrity = np.where(is_borderline, low, high).astype(np.float32)
        author_region = codes_in_shares(rng, world.regions.shares, len(catalogue.author_quality))
        self.region = author_region[catalogue.item_author]
        self.in_order = np.argsort(self.published, kind="stable")
        self.rank = np.empty_like(self.in_order)
        self.rank[self.in_order] = np.arange(items)
        self._published_in_order = self.published[self.in_order]
        self._by_expiry = np.argsort(self.expires, kind="stable")
        self._expires_in_order = self.expires[self._by_expiry]
        self._longest = int(np.ceil(life.max_hours * MILLISECONDS_PER_HOUR))
        self._quality = catalogue.item_quality
        self._ageing = np.float32(life.ageing / MILLISECONDS_PER_DAY)
        self._drift = _drift(world, items, rng)

    def appeal(self, item: Integers, time: Integers) -> Floats:
        """Quality, drift by the hour of the item's age, and what ageing has taken."""
        age = np.maximum(time - self.published[item], 0)
        hour = np.minimum(age // MILLISECONDS_PER_HOUR, self._drift.shape[1] - 1)
        return self._quality[item] + self._drift[item, hour] - self._ageing * age.astype(np.float32)

    def published_by(self, time: int) -> int:
        """How many items are published at a moment or before it."""
        return int(np.searchsorted(self._published_in_order, time, side="right"))

    def alive(self, first: int, last: int) -> Integers:
        """Items published at ``first`` or before it that expire after ``last``, oldest first."""
        begin = int(np.searchsorted(self._published_in_order, first - self._longest))
        window = self.in_order[begin : self.published_by(first)]
        return window[self.expires[window] > last]

    def expired(self, after: int, by: int) -> Integers:
        """Items that expire in ``(after, by]``."""
        begin, end = np.searchsorted(self._expires_in_order, [after, by], side="right")
        return self._by_expiry[begin:end]

    def most_at_once(self) -> int:
        """The most items that are published within a longest life and an hour."""
        reach = self._longest + MILLISECONDS_PER_HOUR
        within = np.searchsorted(self._published_in_order, self._published_in_order + reach)
        return int((within - np.arange(len(within))).max())


def _drift(world: WorldConfig, items: int, rng: np.random.Generator) -> Floats:
    """An Ornstein-Uhlenbeck process by the hours of an item's life, [items, hours]."""
    life = world.life
    hours = int(np.ceil(life.max_hours)) + 1
    kept = np.float32(np.exp(-1 / life.appeal_hours))
    step = np.float32(life.appeal_sd) * np.sqrt(1 - kept**2)
    path = np.empty((items, hours), np.float32)
    path[:, 0] = rng.standard_normal(items, dtype=np.float32) * np.float32(life.appeal_sd)
    for hour in range(1, hours):
        path[:, hour] = kept * path[:, hour - 1] + step * rng.standard_normal(items, np.float32)
    return path
