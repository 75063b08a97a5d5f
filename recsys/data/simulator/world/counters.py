"""Counters of items as they are known while a world is played, which forget by half-lives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.simulator.world.config import SEE_LESS, WORLD_LOGIT_TASKS
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World

Doubles = NDArray[np.float64]


def engaged(world: World, shown: Shown) -> NDArray[np.bool_]:
    """Whether there was an action that is not "see less", [n]; watching alone is none."""
    actions = [task.name in WORLD_LOGIT_TASKS and task.name != SEE_LESS for task in world.tasks]
    return (shown.outcomes[:, actions] == 1).any(axis=1)


class ItemCounters:
    """Impressions and engagements by region and item; they are halved by and by.

    Args:
        world: with the items.
        half_life_hours: None to forget nothing.

    Attributes:
        shown: [regions, items] impressions, engaged likewise.
    """

    def __init__(self, world: World, half_life_hours: float | None = None) -> None:
        self._world, self._half_life = world, half_life_hours
        shape = (len(world.world.regions.shares), len(world.items.rank))
        self.shown, self.engaged = np.zeros(shape), np.zeros(shape)
        self._until = world.start

    def advance(self, time: int) -> None:
        """Forget what has faded by a moment, by whole hours."""
        hours = (time - self._until) // MILLISECONDS_PER_HOUR
        if self._half_life is not None and hours > 0:
            kept = 0.5 ** (hours / self._half_life)
            self.shown *= kept
            self.engaged *= kept
        self._until += hours * MILLISECONDS_PER_HOUR

    def add(self, shown: Shown) -> None:
        """Count what was looked at."""
        at = self._world.users.region[shown.user].astype(np.int64), shown.item
        np.add.at(self.shown, at, 1)
        np.add.at(self.engaged, at, engaged(self._world, shown))

    def rates(self, items: NDArray[np.int64], prior: float) -> Doubles:
        """Share of impressions engaged with, [regions, items]; ``prior`` more at the mean rate."""
        mean = (self.engaged.sum() + 1) / (self.shown.sum() + 10)
        return (self.engaged[:, items] + prior * mean) / (self.shown[:, items] + prior)
