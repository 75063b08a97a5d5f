"""Where configurations of a funnel are played: the same visits with the same draws for each."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator.world.log import read_shown
from recsys.data.simulator.world.world import Visits, World
from recsys.online.compare import played
from recsys.online.funnel import FunnelPolicy
from recsys.online.metrics import VISITS, WAITS, UserSums
from recsys.online.tuning.config import TuneConfig
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig


class Arena:
    """A world, its visits, and what was seen before.

    Args:
        config: of a tuning.

    Attributes:
        world: that is played.
        tuned: visits of the users on whom trials are played.
        others: visits of those on whom the choice is confirmed.

    Raises:
        ConfigError: there are not so many users or days, or nobody visits.
        DataError: there is no simulation.
    """

    def __init__(self, config: TuneConfig) -> None:
        simulation = Path(config.simulation)
        self.world = World.open(simulation)
        self._config = config
        self._users = config.users or len(self.world.users) // 2
        self._others = config.confirm_users or self._users
        self.tuned, self.others = self._visits()
        since = self.world.log_end - round(config.log_hours * MILLISECONDS_PER_HOUR)
        self._before = read_shown(self.world, simulation, since)
        last = self.world.log_end + round(config.days * MILLISECONDS_PER_DAY)
        self._opens = self.world.opens(since, last, self._users + self._others)

    def play(self, funnel: FunnelConfig, visits: Visits, ledger: Path | None = None) -> UserSums:
        """Sums by user under a funnel, with ``<task>_per_session`` among the metrics.

        Args:
            funnel: as it is configured.
            visits: that are played.
            ledger: folder in which its requests are noted; None for none.
        """
        config = self._config
        tick_ms = round(config.tick_minutes * 60_000)
        policy = FunnelPolicy(self.world, funnel)

        with ExitStack() as stack:
            if ledger is not None:
                opened = Ledger(ledger, Described.of(policy.funnel), LedgerConfig(patient=True))
                policy.ledger = stack.enter_context(closing(opened))
            tuned = self._opens.user < self._users
            mine = tuned == (visits.user[0] < self._users)
            sums = played(
                self.world,
                policy,
                visits,
                tick_ms,
                config.new_hours,
                self._before,
                opens=self._opens.select(mine),
            )
        sums.metrics |= self._per_session()
        return sums

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what a play measures."""
        own = UserSums(self.world, self._config.new_hours).metrics
        return (*own, *WAITS, *self._per_session())

    def _per_session(self) -> dict[str, tuple[str, str]]:
        """Numerators and denominators of the tasks' means over sessions."""
        return {f"{task.name}_per_session": (task.name, VISITS) for task in self.world.tasks}

    def _visits(self) -> tuple[Visits, Visits]:
        config, world = self._config, self.world
        last = world.log_end + round(config.days * MILLISECONDS_PER_DAY)
        if last > world.end:
            raise ConfigError(
                f"days={config.days:g} is more than the world has after its log "
                f"(simulator.world.online_days={world.world.online_days}); give fewer."
            )
        users, others = self._users, self._others
        if users + others > len(world.users):
            raise ConfigError(
                f"users={users} and as many as confirm_users={others} others are more than the "
                f"{len(world.users)} users of the world; give fewer, so that the choice is "
                "confirmed on users on whom it was not made."
            )
        visits = world.visits(world.log_end, last, users + others)
        is_other = visits.user >= users
        found = visits.at(np.flatnonzero(~is_other)), visits.at(np.flatnonzero(is_other))
        if not all(map(len, found)):
            raise ConfigError(
                "nobody visits in that time, of those who are played or of those on whom the "
                "choice is confirmed; give more users= or days=."
            )
        return found
