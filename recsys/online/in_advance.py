"""Lists of a funnel that are made when users open the app, in a world that is played.

Legend: n opens, B visits, k places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR
from recsys.data.simulator.world.counters import engaged
from recsys.data.simulator.world.play import Recommended
from recsys.data.simulator.world.play import Requests as Asked
from recsys.data.simulator.world.users import Opens
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World
from recsys.serving.funnel.cache.config import PrefetchConfig
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.funnel import Outcome
from recsys.serving.funnel.prefetch.habits import Habits
from recsys.serving.funnel.prefetch.prefetcher import load_prefetcher
from recsys.serving.funnel.prefetch.shown import shown_at

#: Within so long no user opens the app twice (simulator.world.opens.pause_minutes).
_PAUSE_MS = 10 * 60_000


@dataclass(frozen=True, eq=False)
class Kept:
    """A list that waits on a user's device.

    Attributes:
        request: the one that it was made for.
        outcome: what became of the candidates.
        answer: the list.
    """

    request: Requests
    outcome: Outcome
    answer: Recommended

    def shown_at(self, moment: int) -> tuple[Requests, Outcome]:
        """As a ledger has it once the list is shown."""
        return shown_at(self.request, self.outcome, moment)


class InAdvance:
    """Says who is worth a list in advance, and keeps these lists until they are shown or too old.

    Args:
        world: that is played.
        config: of the funnel.

    Attributes:
        habits: of all users.

    Raises:
        ArtifactError, ConfigError, InstallationError: as ``load_prefetcher``.
    """

    def __init__(self, world: World, config: PrefetchConfig) -> None:
        self._world, self._config = world, config
        self._prefetcher = None if config.models is None else load_prefetcher(config)
        self._max_age_ms = round(config.max_age_hours * MILLISECONDS_PER_HOUR)
        self._kept: dict[int, Kept] = {}
        self.habits = Habits(world.users.device, world.users.network)

    @property
    def used(self) -> bool:
        """Whether any list is made in advance."""
        return self._prefetcher is not None

    def remember(self, opens: Opens) -> None:
        """Take in openings of the app that were before what is played."""
        since, times = opens.time + self._world.start, opens.time // _PAUSE_MS
        for number in np.unique(times).tolist():
            rows = np.flatnonzero(times == number)
            self.habits.opened(opens.user[rows], since[rows])
            rows = rows[opens.visits[rows]]
            self.habits.visited(opens.user[rows], opens.visit_time[rows] + self._world.start)

    def observe(self, shown: Shown) -> None:
        """Count engagements."""
        did = shown.user[engaged(self._world, shown)]
        self.habits.engaged(did, int(shown.ended_at.max()))

    def chosen(self, opens: Asked, features: NDArray[np.float32]) -> NDArray[np.bool_]:
        """[n] for whom a list is made; not where one waits that is young enough."""
        if self._prefetcher is None:
            return np.zeros(len(opens), np.bool_)
        pairs = zip(opens.user.tolist(), opens.time.tolist(), strict=True)
        waits = np.array([self._young(user, moment) for user, moment in pairs], np.bool_)
        return self._prefetcher.chosen(features, self._config) & ~waits

    def keep(self, requests: Requests, outcome: Outcome, answer: Recommended) -> None:
        """Lists that were made for some users, in the place of what they had."""
        for number, user in enumerate(requests.user.tolist()):
            one = slice(number, number + 1)
            self._kept[user] = Kept(
                requests.only(one), outcome.of_request(number), answer.only(np.array([number]))
            )

    def take(self, visits: Asked) -> list[Kept | None]:
        """[B] the lists that wait for these users; each is shown once, and not when it is old."""
        found = []
        for user, moment in zip(visits.user.tolist(), visits.time.tolist(), strict=True):
            young = self._young(user, moment)
            kept = self._kept.pop(user, None)
            found.append(kept if young else None)
        return found

    def _young(self, user: int, moment: int) -> bool:
        kept = self._kept.get(user)
        return kept is not None and moment - int(kept.request.moment[0]) <= self._max_age_ms
