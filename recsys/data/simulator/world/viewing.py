"""What users do with the lists of their visits: they look through them until they leave.

Legend: B visits, k places, n items looked at, K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_SECOND
from recsys.data.simulator.outcomes import sigmoid
from recsys.data.simulator.world.config import WATCH_TIME
from recsys.data.simulator.world.draws import Stream, uniforms, words
from recsys.data.simulator.world.world import Visits, World

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

#: Stands in a list where nothing is recommended.
NOTHING = -1


@dataclass(frozen=True)
class Shown:
    """Items that users have looked at, [n] each, in the order of the requests.

    Attributes:
        request: place of the visit in its tick.
        user: index.
        item: index.
        request_time: ms in UTC, the moment of the visit; shown_at, ended_at are when the item was
            shown and left.
        surface: code.
        position: in the list as shown, 0 the first.
        outcomes: [n, K] in the order of the world's tasks.
        propensity: as recommended; NaN where the policy does not say.
    """

    request: Integers
    user: Integers
    item: Integers
    request_time: Integers
    surface: NDArray[np.int8]
    position: Integers
    shown_at: Integers
    ended_at: Integers
    outcomes: Floats
    propensity: Floats

    def __len__(self) -> int:
        return len(self.user)

    def select(self, chosen: NDArray[np.bool_]) -> Shown:
        """Some of them."""
        return Shown(**{name: column[chosen] for name, column in vars(self).items()})

    @classmethod
    def together(cls, several: list[Shown]) -> Shown:
        """Several, one after the other."""
        return cls(**{n: np.concatenate([vars(s)[n] for s in several]) for n in vars(several[0])})


def view(world: World, visits: Visits, lists: Integers, propensity: Floats) -> Shown:
    """Users look through their lists until they leave."""
    viewing = world.world.viewing
    request, position = np.nonzero(lists != NOTHING)
    item, user, moment = lists[request, position], visits.user[request], visits.time[request]
    surface = visits.surface[request]
    outcomes = world.outcomes(user, item, moment, surface)
    worth = np.nan_to_num(outcomes) @ world.value
    stay_logit = np.float32(viewing.stay_logit) + np.float32(viewing.stay_value) * worth
    draw = uniforms(words(world.config.seed, Stream.STAY, user, moment, position))
    goes_on = np.zeros(lists.shape, bool)
    goes_on[request, position] = draw < sigmoid(stay_logit)
    reaches = np.ones_like(goes_on)
    reaches[:, 1:] = np.logical_and.accumulate(goes_on[:, :-1], axis=1)
    looked_at = reaches[request, position]
    shown_at, ended_at = _moments(world, request, user, moment, position, outcomes)
    return Shown(
        request=request,
        user=user,
        item=item,
        request_time=moment,
        surface=surface,
        position=position,
        shown_at=shown_at,
        ended_at=ended_at,
        outcomes=outcomes,
        propensity=propensity[request, position],
    ).select(looked_at)


def watched_ms(seconds: Floats) -> Integers:
    """How long items were on the screen, in ms: those watched for no time at all for one."""
    return (seconds * MILLISECONDS_PER_SECOND).astype(np.int64) + 1


def _moments(
    world: World,
    request: Integers,
    user: Integers,
    moment: Integers,
    position: Integers,
    outcomes: Floats,
) -> tuple[Integers, Integers]:
    """When items are shown and left: each once the one before was watched and thought about."""
    watch = [task.name for task in world.tasks].index(WATCH_TIME)
    draw = uniforms(words(world.config.seed, Stream.THINK, user, moment, position))
    think = -np.log(draw) * world.config.sessions.think_seconds
    watched = watched_ms(outcomes[:, watch])
    spent = watched + (think * MILLISECONDS_PER_SECOND).astype(np.int64) + 1
    before = np.cumsum(spent) - spent
    first = np.flatnonzero(np.diff(request, prepend=-1))
    of_request = np.repeat(before[first], np.diff(np.append(first, len(request))))
    shown_at = moment + 1 + before - of_request
    return shown_at, shown_at + watched
