"""What happened under a policy, summed by user, and the online metrics that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, TaskKind
from recsys.data.simulator.world.play import Tick
from recsys.data.simulator.world.viewing import Shown
from recsys.data.simulator.world.world import World

Doubles = NDArray[np.float64]

VALUE, DEPTH, AUTHORS = "value_per_session", "session_depth", "authors_per_session"
NEW_ITEMS, REFUSED = "new_item_share", "refused_per_session"
LATENCY, PROCESSOR = "latency_ms", "processor_ms"
PAIRS, CACHED, SIDES = "pairs_scored", "cached_share", "user_sides_kept_share"
ADVANCE, WASTED = "in_advance_share", "wasted_share"
#: Waits of users from end to end, by the share of visits that wait no longer.
WAITS = {"end_to_end_p50_ms": 0.5, "end_to_end_p75_ms": 0.75, "end_to_end_p99_ms": 0.99}

#: What metrics are per.
VISITS, _IMPRESSIONS = "visits", "impressions"
#: Pairs that were scored, or whose scores a cache had.
_PREDICTED = "predicted"


class UserSums:
    """Sums by user over a play, from which every metric is a ratio of two.

    Args:
        world: that is played.
        new_hours: items are new up to this age.

    Attributes:
        names: of the columns.
        sums: [U, columns].
        metrics: name of each metric to the columns of its numerator and denominator.
        waits: by tick the users of the visits, and how long each has waited, ms.
    """

    def __init__(self, world: World, new_hours: float) -> None:
        self._world, self._new_ms = world, new_hours * MILLISECONDS_PER_HOUR
        actions = [task.name for task in world.tasks]
        own = (VISITS, _IMPRESSIONS, VALUE, AUTHORS, NEW_ITEMS, REFUSED, LATENCY, PAIRS)
        self.names = (*own, CACHED, _PREDICTED, SIDES, ADVANCE, WASTED, PROCESSOR, *actions)
        self.waits: list[tuple[NDArray[np.int64], Doubles]] = []
        self.sums: Doubles = np.zeros((len(world.users), len(self.names)))
        self.metrics = {
            VALUE: (VALUE, VISITS),
            DEPTH: (_IMPRESSIONS, VISITS),
            **{_metric(task.name, task.kind): (task.name, _IMPRESSIONS) for task in world.tasks},
            AUTHORS: (AUTHORS, VISITS),
            NEW_ITEMS: (NEW_ITEMS, _IMPRESSIONS),
            REFUSED: (REFUSED, VISITS),
            LATENCY: (LATENCY, VISITS),
            PROCESSOR: (PROCESSOR, VISITS),
            PAIRS: (PAIRS, VISITS),
            CACHED: (CACHED, _PREDICTED),
            SIDES: (SIDES, VISITS),
            ADVANCE: (ADVANCE, VISITS),
            WASTED: (WASTED, PAIRS),
        }

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        if tick.opened is not None:
            for name in (PAIRS, WASTED):  # until a list is shown, it was made in vain
                column = self.names.index(name)
                self.sums[tick.opened.user, column] += tick.opened.pairs_scored
            each = tick.opened.processor_seconds * 1_000 / len(tick.opened.user)
            self.sums[tick.opened.user, self.names.index(PROCESSOR)] += each
        user, shown, answer = tick.visits.user, tick.shown, tick.answer
        if not len(user):
            return
        self.waits.append((user, tick.wait_ms))
        count = len(user)

        def of_visit(amount: Doubles) -> Doubles:
            return np.bincount(shown.request, amount, count).astype(np.float64)

        outcomes = np.nan_to_num(shown.outcomes).astype(np.float64)
        age = shown.request_time - self._world.start - self._world.items.published[shown.item]
        scored, cached = (
            np.full(count, np.nan if pairs is None else pairs)
            for pairs in (answer.pairs_scored, answer.pairs_cached)
        )
        advance, spent = answer.in_advance, scored + answer.pairs_sampled
        columns = [
            np.ones(count),
            np.bincount(shown.request, minlength=count),
            of_visit(outcomes @ self._world.value),
            of_visit(_first_of_author(self._world, shown).astype(np.float64)),
            of_visit((age < self._new_ms).astype(np.float64)),
            tick.refused,
            np.full(count, tick.seconds * 1_000 / count),
            np.where(advance, 0, spent),
            cached,
            scored + cached,
            np.full(count, answer.sides_kept),
            advance,
            np.where(advance, -spent, 0),
            np.full(count, tick.processor_seconds * 1_000 / count),
            *(of_visit(outcomes[:, task]) for task in range(outcomes.shape[1])),
        ]
        self.sums[user] += np.stack(columns, axis=1)  # a user visits once in a tick

    def take(self, ticks: Iterable[Tick]) -> UserSums:
        """Add all of them."""
        for tick in ticks:
            self.add(tick)
        return self

    def quantile(self, level: float) -> float:
        """The shortest wait that such a share of the visits does not exceed; NaN where one is."""
        if not self.waits:
            return math.nan
        waits = np.concatenate([waits for _, waits in self.waits])
        return float(np.quantile(waits, level, method="inverted_cdf"))

    def parts(self, metric: str) -> tuple[int, int]:
        """The columns of a metric's numerator and denominator."""
        numerator, denominator = self.metrics[metric]
        return self.names.index(numerator), self.names.index(denominator)


def _metric(task: str, kind: TaskKind) -> str:
    unit = "_per_impression" if kind is TaskKind.BINARY else "_seconds_per_impression"
    return f"{task}{unit}"


def _first_of_author(world: World, shown: Shown) -> NDArray[np.bool_]:
    """Whether an impression is the first of its author in its visit."""
    author = world.catalogue.item_author[shown.item]
    order = np.lexsort((author, shown.request))
    is_first = np.ones(len(order), bool)
    same = np.diff(shown.request[order]) == 0
    is_first[1:] = ~(same & (np.diff(author[order]) == 0))
    result = np.empty_like(is_first)
    result[order] = is_first
    return result
