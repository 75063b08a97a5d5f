"""Two policies played on the same visits with the same draws, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from recsys.core.bounds import Count, Days, Hours, Number, OutPath, Settings
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.core.progress import track
from recsys.data.contract.ledger import PLAYED
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR
from recsys.data.simulator.world.log import read_shown
from recsys.data.simulator.world.play import Policy, play
from recsys.data.simulator.world.play_files import PlayWriter, end_of_play
from recsys.data.simulator.world.users import Opens
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import Visits, World
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.online.freshness import FreshSums
from recsys.online.funnel import FunnelPolicy
from recsys.online.metrics import WAITS, UserSums
from recsys.online.policies import make_policy
from recsys.online.regret import RegretSums
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig
from recsys.serving.funnel.prefetch.habits import FEATURES

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class OnlineConfig(Settings):
    """What is played.

    Attributes:
        simulation: folder of a simulated log that is a world.
        policy: what is tried: ``best``, ``random``, ``popular``, ``recent_popular``, a funnel of
            ``conf/funnel`` by its name, or a file of one.
        against: what it is compared with.
        changes: settings of the tried funnel that are otherwise than in its file.
        users: the first so many; null for all.
        after: ledger of an earlier play, from whose end on is played; null for the end of the log.
        days: so many from there on.
        tick_minutes: policies answer the visits of a tick together, and learn between ticks.
        log_hours: the policies are told of what the log, and an earlier play, have in the last so
            many hours.
        new_hours: an item counts as new up to this age.
        fresh_every: of one visit of so many it is said how near the list of a funnel is to the one
            that it would make without a cache; null for none.
        regret_every: of one visit of so many it is said what each stage of a funnel loses of the
            best list's value; null for none.
        ledger: folder in which the tried funnel's requests are noted, and what was shown and done
            then; null for none.
        bootstrap: intervals over users.
    """

    simulation: str
    policy: str
    against: str
    changes: list[str] = field(default_factory=list)
    users: Count | None = None
    after: str | None = None
    days: Days = 1.0
    tick_minutes: Annotated[float, Number(above=0, at_most=1440)] = 5.0
    log_hours: Hours = 96.0
    new_hours: Hours = 6.0
    fresh_every: Count | None = None
    regret_every: Count | None = None
    ledger: OutPath | None = None
    bootstrap: Bootstrap = field(default_factory=Bootstrap)

    @property
    def tried(self) -> str:
        """What the tried policy is called: its name, and what is otherwise."""
        return " ".join([self.policy, *self.changes])


@dataclass(frozen=True)
class OnlineMetric:
    """One metric under both policies.

    Attributes:
        name: of the metric.
        policy: under the policy tried.
        against: under the other one.
        difference: the first less the second.
        percent: the difference relative to the second.
    """

    name: str
    policy: Interval
    against: Interval
    difference: Interval
    percent: Interval


@dataclass(frozen=True)
class OnlineComparison:
    """What came of playing two policies.

    Attributes:
        users: that visited.
        visits: under each of the two.
        metrics: the metrics.
        regret: of each policy that is a funnel, by stage the value per visit that it loses.
        fresh: of each policy that is a funnel, the NDCG of its lists against those without a cache.
    """

    users: int
    visits: int
    metrics: tuple[OnlineMetric, ...]
    regret: dict[str, dict[str, Interval]] = field(default_factory=dict)
    fresh: dict[str, Interval] = field(default_factory=dict)


def compare_online(config: OnlineConfig) -> OnlineComparison:
    """Play both policies of a configuration.

    Raises:
        ConfigError: a policy is unknown, or nobody visits in the time that is played.
        DataError: there is no simulation.
    """
    world = World.open(Path(config.simulation))
    return compare_policies(config, world, _policies(config, world))


def compare_policies(
    config: OnlineConfig, world: World, policies: dict[str, Policy]
) -> OnlineComparison:
    """Play two policies, the tried one first.

    Args:
        config: what is played; of the policies nothing.
        world: of the simulation.
        policies: by what they are called.

    Raises:
        ConfigError: nobody visits in the time that is played.
    """
    for one in policies.values():
        if isinstance(one, FunnelPolicy):
            if config.regret_every is not None:
                one.regret = RegretSums(world, one.funnel, config.regret_every)
            if config.fresh_every is not None:
                one.fresh = FreshSums(len(world.users), config.fresh_every)
    simulation = Path(config.simulation)
    earlier = None if config.after is None else Path(config.after) / PLAYED
    start = world.log_end if earlier is None else end_of_play(earlier, simulation)
    visits = _visits(config, world, start)
    since = start - round(config.log_hours * MILLISECONDS_PER_HOUR)
    logs = [simulation] if earlier is None else [simulation, earlier]
    before = Shown.together([read_shown(world, log, since) for log in logs])
    opens = world.opens(since, int(visits.time[-1]) + 1, config.users)
    tick_ms = round(config.tick_minutes * 60_000)
    tried, *_ = policies.values()
    with _noting(config, world, tried) as log:
        sums = [
            played(world, policy, visits, tick_ms, config.new_hours, before, of_policy, opens)
            for policy, of_policy in zip(policies.values(), (log, None), strict=True)
        ]
    lost = {
        name: _lost(one.regret, config.bootstrap)
        for name, one in policies.items()
        if isinstance(one, FunnelPolicy) and one.regret is not None
    }
    fresh = {
        name: _fresh(one.fresh, config.bootstrap)
        for name, one in policies.items()
        if isinstance(one, FunnelPolicy) and one.fresh is not None
    }
    return replace(compared(sums[0], sums[1], config.bootstrap), regret=lost, fresh=fresh)


def _policies(config: OnlineConfig, world: World) -> dict[str, Policy]:
    """The one that is tried, and what it is compared with."""
    if config.tried == config.against:
        raise ConfigError(f"policy and against are both {config.tried}; name two, or changes=.")
    return {
        config.tried: make_policy(config.policy, world, config.changes),
        config.against: make_policy(config.against, world),
    }


def _visits(config: OnlineConfig, world: World, start: int) -> Visits:
    last = start + round(config.days * MILLISECONDS_PER_DAY)
    if last > world.end:
        raise ConfigError(
            f"days={config.days:g} is more than the world has after "
            f"{'its log' if config.after is None else config.after} "
            f"(simulator.world.online_days={world.world.online_days}); give fewer."
        )
    visits = world.visits(start, last, config.users)
    if not len(visits):
        raise ConfigError("nobody visits in that time; give more users= or days=.")
    return visits


@contextmanager
def _noting(config: OnlineConfig, world: World, tried: Policy) -> Iterator[PlayWriter | None]:
    """Note what the tried funnel does, where that is asked for; what to note the ticks with."""
    if config.ledger is None:
        yield None
        return
    if not isinstance(tried, FunnelPolicy):
        raise ConfigError(f"ledger=: {tried.name} is no funnel, and has no candidates to note.")
    patient = LedgerConfig(patient=True)
    ledger = Ledger(Path(config.ledger), Described.of(tried.funnel), patient)
    with closing(ledger) as tried.ledger:
        yield PlayWriter(world, Path(config.ledger) / PLAYED, FEATURES)
    if ledger.lost:
        message_console().print(
            f"{ledger.lost:,} requests are not in {config.ledger}: {ledger.problem}."
        )


def played(
    world: World,
    policy: Policy,
    visits: Visits,
    tick_ms: int,
    new_hours: float,
    before: Shown | None = None,
    log: PlayWriter | None = None,
    opens: Opens | None = None,
) -> UserSums:
    """Sums by user of a policy that is played, written to a ``log`` where one is given.

    ``opens`` of the app are what a funnel that makes lists in advance is told of, and what is
    written: those of before the first tick as what is known of old. See ``play`` for the other
    arguments.
    """
    told = None
    if (
        opens is not None
        and isinstance(policy, FunnelPolicy)
        and (policy.in_advance.used or log is not None)
    ):
        begins = int(visits.time[0] - world.start) // tick_ms * tick_ms
        policy.in_advance.remember(opens.select(opens.time < begins))
        told = opens.select(opens.time >= begins)
    span = int(visits.time[-1]) // tick_ms - int(visits.time[0]) // tick_ms + 1
    ticks = play(world, policy, visits, tick_ms, None if before is None else [before], told)
    ticks = ticks if log is None else log.noting(ticks)
    return UserSums(world, new_hours).take(track(ticks, f"Playing {policy.name}", span))


def _fresh(fresh: FreshSums, bootstrap: Bootstrap) -> Interval:
    """Mean NDCG, with its interval over users."""
    per_user = fresh.sums[fresh.sums[:, 1] > 0]
    whole, draws = per_user.sum(axis=0), bootstrap.sums(per_user)
    value = float(whole[0] / whole[1]) if len(per_user) else np.nan
    return bootstrap.interval(value, draws[:, 0] / draws[:, 1])


def _lost(regret: RegretSums, bootstrap: Bootstrap) -> dict[str, Interval]:
    """By stage, per visit, with intervals over users."""
    some = regret.visits > 0
    per_user = np.concatenate([regret.sums[some], regret.visits[some, None]], axis=1)
    whole, draws = per_user.sum(axis=0), bootstrap.sums(per_user)
    return {
        name: bootstrap.interval(float(whole[n] / whole[-1]), draws[:, n] / draws[:, -1])
        for n, name in enumerate(regret.names)
    }


def compared(policy: UserSums, against: UserSums, bootstrap: Bootstrap) -> OnlineComparison:
    """Every metric of two plays of the same visits, with intervals over the users that visited."""
    visited = policy.sums[:, 0] > 0
    per_user = np.concatenate([policy.sums[visited], against.sums[visited]], axis=1)
    whole, draws = per_user.sum(axis=0, keepdims=True), bootstrap.sums(per_user)
    width = policy.sums.shape[1]

    def metric(name: str) -> OnlineMetric:
        top, bottom = policy.parts(name)
        values = [_four(sums, top, bottom, width) for sums in (whole, draws)]
        intervals = [
            bootstrap.interval(float(value[0]), drawn) for value, drawn in zip(*values, strict=True)
        ]
        return OnlineMetric(name, *intervals)

    metrics = tuple(metric(name) for name in policy.metrics)
    metrics += tuple(_waits(policy, against, visited, bootstrap, name) for name in WAITS)
    return OnlineComparison(int(visited.sum()), int(whole[0, 0]), metrics)


def _waits(
    policy: UserSums,
    against: UserSums,
    visited: NDArray[np.bool_],
    bootstrap: Bootstrap,
    name: str,
) -> OnlineMetric:
    """A quantile of how long users wait."""
    level, place = WAITS[name], np.cumsum(visited) - 1
    draws = [_drawn_waits(one, place, bootstrap, level) for one in (policy, against)]
    wholes = [np.array([one.quantile(level)]) for one in (policy, against)]
    four = zip(_apart(*wholes), _apart(*draws), strict=True)
    return OnlineMetric(name, *(bootstrap.interval(float(one[0]), drawn) for one, drawn in four))


def _drawn_waits(
    sums: UserSums, place: NDArray[np.int64], bootstrap: Bootstrap, level: float
) -> Doubles:
    user, waits = (np.concatenate(one) for one in zip(*sums.waits, strict=True))
    return bootstrap.quantiles(waits, place[user], int(place[-1]) + 1, level)


def _four(sums: Doubles, top: int, bottom: int, width: int) -> tuple[Doubles, ...]:
    """A metric under both, the difference, and that in percent, [draws] each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tried = sums[:, top] / sums[:, bottom]
        other = sums[:, width + top] / sums[:, width + bottom]
    return _apart(tried, other)


def _apart(tried: Doubles, other: Doubles) -> tuple[Doubles, ...]:
    """Both, the difference, and that in percent of the other, [draws] each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return tried, other, tried - other, 100 * (tried - other) / other
