"""Where a funnel loses the value of the best list, in a world where that list is known.

Legend: B requests, N candidates, A items alive, S stages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.simulator.world.play import Requests as Visits
from recsys.data.simulator.world.world import World
from recsys.serving.funnel.candidates import Offers, Requests, Share, mix
from recsys.serving.funnel.funnel import Funnel, Outcome
from recsys.serving.funnel.losses import regret

Doubles = NDArray[np.float64]

#: Of the whole, before its parts.
BEST = "best list"
SOURCES = "sources"


class RegretSums:
    """Sums by user of the best list's value and of what each stage lost of it.

    A list's value is the sum of its items' expected values, as if it was looked at to its end; the
    best list has the k most valuable items that are alive, not seen and let through by the filters.

    Args:
        world: that is played.
        funnel: whose stages lose.
        every: one visit of so many is looked at, for the best list takes long.

    Attributes:
        names: of the columns: the best list, what the sources did not find, and the stages.
        sums: [U, S + 2].
        visits: [U] that were looked at.
    """

    def __init__(self, world: World, funnel: Funnel, every: int) -> None:
        self._world, self._funnel, self._every = world, funnel, every
        self.names = (BEST, SOURCES, *funnel.stages)
        self.sums: Doubles = np.zeros((len(world.users), len(self.names)))
        self.visits: Doubles = np.zeros(len(world.users))

    def add(self, visits: Visits, requests: Requests, outcome: Outcome, k: int) -> None:
        """Look at some of the visits of a tick, before anything is shown."""
        of = outcome.candidates
        ends = np.cumsum(of.lengths)
        for number in np.flatnonzero(requests.number % self._every == 0).tolist():
            candidates = slice(int(ends[number] - of.lengths[number]), int(ends[number]))
            visit = visits.only(np.array([number]))
            one = requests.only(slice(number, number + 1))
            allowed = _allowed(self._funnel, one, visits.alive)
            truth = np.full(len(self._world.items.rank), np.nan)
            truth[allowed] = self._world.expected_value(
                visit.user, allowed, visit.time, visit.surface
            )
            best = np.sort(truth[allowed])[::-1][:k]
            parts = regret(
                of.of_request(number),
                truth[of.item[candidates]],
                np.array([best[best > 0].sum()]),
                len(self._funnel.stages),
                k,
            )
            user = int(visit.user[0])
            self.sums[user] += [best[best > 0].sum(), *parts[0]]
            self.visits[user] += 1


def _allowed(funnel: Funnel, request: Requests, alive: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items that the filters let through for one request."""
    length = np.array([len(alive)])
    everything = mix(
        [Offers(length, alive, np.zeros(len(alive), np.float32))], [Share(len(alive))], 1
    )
    for number, one in enumerate(funnel.filters, 1):
        everything.leave_out(~one.keep(request, everything), number)
    return everything.item[everything.alive]
