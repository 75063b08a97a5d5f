"""What happened under a policy, summed by user, and the online metrics that follow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, TaskKind
from recsys.data.simulator.world.play import Shown, Tick
from recsys.data.simulator.world.world import World

Doubles = NDArray[np.float64]

VALUE, DEPTH, AUTHORS = "value_per_session", "session_depth", "authors_per_session"
NEW_ITEMS, REFUSED = "new_item_share", "refused_per_session"
LATENCY, PAIRS, CACHED = "latency_ms", "pairs_scored", "cached_share"

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
    """

    def __init__(self, world: World, new_hours: float) -> None:
        self._world, self._new_ms = world, new_hours * MILLISECONDS_PER_HOUR
        actions = [task.name for task in world.tasks]
        own = (VISITS, _IMPRESSIONS, VALUE, AUTHORS, NEW_ITEMS, REFUSED, LATENCY, PAIRS)
        self.names = (*own, CACHED, _PREDICTED, *actions)
        self.sums: Doubles = np.zeros((len(world.users), len(self.names)))
        self.metrics = {
            VALUE: (VALUE, VISITS),
            DEPTH: (_IMPRESSIONS, VISITS),
            **{_metric(task.name, task.kind): (task.name, _IMPRESSIONS) for task in world.tasks},
            AUTHORS: (AUTHORS, VISITS),
            NEW_ITEMS: (NEW_ITEMS, _IMPRESSIONS),
            REFUSED: (REFUSED, VISITS),
            LATENCY: (LATENCY, VISITS),
            PAIRS: (PAIRS, VISITS),
            CACHED: (CACHED, _PREDICTED),
        }

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        user, shown = tick.visits.user, tick.shown
        count = len(user)

        def of_visit(amount: Doubles) -> Doubles:
            return np.bincount(shown.request, amount, count).astype(np.float64)

        outcomes = np.nan_to_num(shown.outcomes).astype(np.float64)
        age = shown.request_time - self._world.start - self._world.items.published[shown.item]
        scored, cached = (
            np.full(count, np.nan if pairs is None else pairs / count)
            for pairs in (tick.pairs_scored, tick.pairs_cached)
        )
        columns = [
            np.ones(count),
            np.bincount(shown.request, minlength=count),
            of_visit(outcomes @ self._world.value),
            of_visit(_first_of_author(self._world, shown).astype(np.float64)),
            of_visit((age < self._new_ms).astype(np.float64)),
            tick.refused,
            np.full(count, tick.seconds * 1_000 / count),
            scored,
            cached,
            scored + cached,
            *(of_visit(outcomes[:, task]) for task in range(outcomes.shape[1])),
        ]
        self.sums[user] += np.stack(columns, axis=1)  # a user visits once in a tick

    def take(self, ticks: Iterable[Tick]) -> UserSums:
        """Add all of them."""
        for tick in ticks:
            self.add(tick)
        return self

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
