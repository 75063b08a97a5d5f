"""Playing a world: visits in the order of time, a policy that recommends, and what users do.

What a user has seen is the only thing that feedback changes. An item that is not alive, that the
user has seen or that stands in the list already is not shown; the list closes up, and it is
counted. Draws belong to events (``draws.py``), so policies are compared on the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_SECOND
from recsys.data.simulator.world.seen import SeenItems
from recsys.data.simulator.world.users import LONGEST_DELAY_SECONDS, Opens
from recsys.data.simulator.world.viewing import NOTHING, Shown, view
from recsys.data.simulator.world.waiting import wait_ms
from recsys.data.simulator.world.world import Visits, World

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Requests:
    """The visits of a tick, no user twice, and what anybody may know then.

    Attributes:
        user: [B] index; ids of the log are the same numbers.
        time: [B] ms in UTC.
        surface: [B] code.
        alive: [N] items that are alive all through the tick, oldest first.
        seen: what users have seen under this policy.
    """

    user: Integers
    time: Integers
    surface: NDArray[np.int8]
    alive: Integers
    seen: SeenItems

    def __len__(self) -> int:
        return len(self.user)

    def only(self, chosen: Integers) -> Requests:
        """Those at some places."""
        user, time, surface = self.user[chosen], self.time[chosen], self.surface[chosen]
        return Requests(user, time, surface, self.alive, self.seen)


@dataclass(frozen=True)
class Recommended:
    """What a policy answers.

    Attributes:
        items: [B, k] a list per request, the best first; ``NOTHING`` where there is none.
        propensity: [B, k] probability with which the item came to its place given those before it,
            where the policy draws; None where it does not say.
        pairs_scored: [B] pairs of user and item that were scored for the list of each request, or
            one number for all alike; None where the policy does not say.
        pairs_cached: that were not, for a cache had their scores; likewise.
        pairs_sampled: that were scored once the list was made, to learn from; likewise.
        asked: [B] ms when a list was asked for in advance, ``NOTHING`` for one that was at the
            visit; None where all were.
        sides_kept: [B] whether what a model makes of the user was kept from an earlier request, or
            one answer for all alike.
    """

    items: Integers
    propensity: Floats | None = None
    pairs_scored: Integers | int | None = None
    pairs_cached: Integers | int | None = None
    pairs_sampled: Integers | int = 0
    asked: Integers | None = None
    sides_kept: NDArray[np.bool_] | bool = False

    def only(self, chosen: NDArray[np.bool_] | Integers) -> Recommended:
        """Those of some requests, of a policy that says all by request."""
        return Recommended(**{name: column[chosen] for name, column in vars(self).items()})

    @property
    def in_advance(self) -> Flags:
        """[B] whose lists were made before the visit."""
        return np.zeros(len(self.items), bool) if self.asked is None else self.asked != NOTHING


@dataclass(frozen=True)
class Opened:
    """What a policy does when users open the app, [n] each.

    Attributes:
        user: index.
        time: of the open, ms in UTC.
        features: [n, F] what it knows of a visit and of the wait for it.
        listed: whether it made a list in advance.
        pairs_scored: for these lists, samples included; 0 where it made none.
        processor_seconds: that all of it took.
    """

    user: Integers
    time: Integers
    features: Floats
    listed: NDArray[np.bool_]
    pairs_scored: Integers
    processor_seconds: float = 0.0


class Policy(Protocol):
    """Recommends, and learns of what happened under itself."""

    name: str

    def recommend(self, requests: Requests, k: int) -> Recommended:
        """A list of k items for each request."""
        ...

    def observe(self, shown: Shown) -> None:
        """Take notice of what users have looked at; it ended before the next requests."""
        ...


class OpenPolicy(Policy, Protocol):
    """One that is told of openings of the app, whether a visit follows or not."""

    def opened(self, opens: Requests, notified: NDArray[np.bool_], k: int) -> Opened:
        """Make lists of k items in advance, or none; ``notified`` says who sees a notification."""
        ...

    def waited(self, visits: Visits, wait_ms: NDArray[np.float64], in_advance: Flags) -> None:
        """Take notice of how long users have waited [B], and whose lists were made in advance."""
        ...


@dataclass(frozen=True)
class Tick:
    """What happened in a tick under a policy.

    Attributes:
        visits: the B visits; there may be none where users opened the app.
        shown: what was looked at.
        seconds: that the policy took to recommend, by the clock.
        processor_seconds: that it took, of all threads of this process.
        answer: of the policy.
        refused: [B] recommended items that could not be shown.
        wait_ms: [B] from end to end; NaN where the world or the policy does not say.
        opened: what the policy did at openings of the app; None where it was told of none.
    """

    visits: Visits
    shown: Shown
    seconds: float
    processor_seconds: float
    answer: Recommended
    refused: Integers
    wait_ms: NDArray[np.float64]
    opened: Opened | None = None


def play(
    world: World,
    policy: Policy,
    visits: Visits,
    tick_ms: int,
    before: list[Shown] | None = None,
    opens: Opens | None = None,
) -> Iterator[Tick]:
    """Play visits under a policy, tick by tick.

    Args:
        world: whose users visit.
        policy: what they are recommended by.
        visits: in the order of time.
        tick_ms: length of a tick; a policy learns of what ended before the tick.
        before: what users saw before the first visit, which the policy is told of.
        opens: of the app, of the same days, where the policy is an ``OpenPolicy``; those of a tick
            come before its visits.

    Raises:
        ConfigError: a tick is so long that a user could visit twice in it.
    """
    pause = world.world.opens.pause_minutes * 60 - LONGEST_DELAY_SECONDS
    if not 0 < tick_ms <= pause * MILLISECONDS_PER_SECOND:
        raise ConfigError(
            f"a tick of {tick_ms / 60_000:g} minutes is too long: within {pause / 60:g} minutes no "
            "user visits twice (simulator.world.opens.pause_minutes less 5); give fewer."
        )
    if not len(visits):
        return
    seen, waiting = SeenItems(world.items, len(world.users)), list(before or ())
    of_visits = _ByTick((visits.time - world.start) // tick_ms)
    of_opens = _ByTick(np.empty(0, np.int64))
    if opens is not None:
        opens = opens.select(np.argsort(opens.time, kind="stable"))
        of_opens = _ByTick(opens.time // tick_ms)
    numbers = np.union1d(of_visits.numbers, of_opens.numbers).tolist()
    first_alive = _go_on(world, seen, numbers[0], tick_ms)
    for shown in waiting:
        still = shown.select(np.isin(shown.item, first_alive))
        seen.add(still.user, still.item)
    for number in numbers:
        waiting = _tell(policy, waiting, world.start + number * tick_ms)
        alive = _go_on(world, seen, number, tick_ms)
        opened = None
        if opens is not None:
            told = opens.select(np.arange(len(opens))[of_opens.of(number)])
            opened = _open(world, cast(OpenPolicy, policy), told, alive, seen)
        tick = _tick(world, policy, visits.at(of_visits.of(number)), alive, seen)
        if opens is not None:
            cast(OpenPolicy, policy).waited(tick.visits, tick.wait_ms, tick.answer.in_advance)
        seen.add(tick.shown.user, tick.shown.item)
        waiting.append(tick.shown)
        yield replace(tick, opened=opened)


class _ByTick:
    """Where things in the order of time lie that belong to a tick, by its number."""

    def __init__(self, number: Integers) -> None:
        self._number = number
        self.numbers = np.unique(number)

    def of(self, number: int) -> slice:
        """Those of a tick."""
        first, last = np.searchsorted(self._number, [number, number + 1])
        return slice(int(first), int(last))


def _open(
    world: World, policy: OpenPolicy, opens: Opens, alive: Integers, seen: SeenItems
) -> Opened | None:
    if not len(opens):
        return None
    requests = Requests(opens.user, opens.time + world.start, opens.surface, alive, seen)
    began = time.process_time()
    opened = policy.opened(requests, opens.notified, world.world.viewing.items)
    return replace(opened, processor_seconds=time.process_time() - began)


def _go_on(world: World, seen: SeenItems, number: int, tick_ms: int) -> Integers:
    """The items that are alive all through a tick."""
    first = number * tick_ms
    seen.advance(first, first + tick_ms)
    return world.alive(world.start + first, world.start + first + tick_ms)


def _tell(policy: Policy, waiting: list[Shown], now: int) -> list[Shown]:
    """Tell the policy of what has ended by now; the rest goes on waiting."""
    if not waiting:
        return waiting
    shown = Shown.together(waiting)
    over = shown.ended_at <= now
    if over.any():
        policy.observe(shown.select(over))
    return [shown.select(~over)]


def _tick(world: World, policy: Policy, visits: Visits, alive: Integers, seen: SeenItems) -> Tick:
    k = world.world.viewing.items
    began, processor = time.perf_counter(), time.process_time()
    requests = Requests(visits.user, visits.time, visits.surface, alive, seen)
    nobody = Recommended(np.empty((0, k), np.int64))
    answer = policy.recommend(requests, k) if len(visits) else nobody
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    items = answer.items
    if items.shape != (len(visits), k):
        raise ValueError(f"policy {policy.name} gave {items.shape}, not {(len(visits), k)} items")
    may = _may_be_shown(world, visits, items, alive, seen)
    refused = ((items != NOTHING) & ~may).sum(axis=1)
    order = np.argsort(~may, axis=1, kind="stable")
    lists = np.take_along_axis(np.where(may, items, NOTHING), order, axis=1)
    propensity = np.full(lists.shape, np.nan, np.float32)
    if answer.propensity is not None:
        propensity = np.take_along_axis(answer.propensity, order, axis=1)
    shown = view(world, visits, lists, propensity)
    wait = _wait_ms(world, visits, answer)
    return Tick(visits, shown, seconds, processor, answer, refused, wait)


def _wait_ms(world: World, visits: Visits, answer: Recommended) -> NDArray[np.float64]:
    scored, cached = (
        np.full(len(visits), unsaid if pairs is None else pairs)
        for pairs, unsaid in ((answer.pairs_scored, np.nan), (answer.pairs_cached, 0.0))
    )
    asked = visits.time
    if answer.asked is not None:
        asked = np.where(answer.in_advance, answer.asked, visits.time)
    return wait_ms(world, visits.user, visits.time, asked, scored, cached)


def _may_be_shown(
    world: World, visits: Visits, items: Integers, alive: Integers, seen: SeenItems
) -> NDArray[np.bool_]:
    """Alive, not seen, and the first of its kind in the list, [B, k]."""
    is_alive = np.zeros(len(world.items.rank), bool)
    is_alive[alive] = True
    may = (items >= 0) & (items < len(is_alive))
    known = np.where(may, items, 0)
    may &= is_alive[known]
    may &= ~seen.has(visits.user[:, None], known)
    by_item = np.argsort(items, axis=1, kind="stable")
    in_order = np.take_along_axis(items, by_item, axis=1)
    again = np.zeros_like(may)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, by_item, again, axis=1)
    return may & ~repeated
