"""What is known of a user who opens the app: whether a visit follows, and how long it would wait.

Legend: n users at a moment, no user twice; U users, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_HOUR

Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]

#: Of the open: the hour of the day, whether a notification is shown; device and network by number.
#: Of the user, all counts halved every three days: opens, visits, and both in this part of the day;
#: hours since the last open and the last visit; engagements, halved every day; how long visits have
#: waited for lists that were not made in advance, in logarithms of ms, the mean and the last. NaN
#: for what has not happened yet.
FEATURES = (
    "hour",
    "notified",
    "device",
    "network",
    "opens",
    "visits",
    "opens_by_hour",
    "visits_by_hour",
    "hours_since_open",
    "hours_since_visit",
    "engagements",
    "waits_mean",
    "waits_last",
)
#: Those that are names of something.
NAMES = ("device", "network")

_HABIT_HOURS, _ENGAGED_HOURS = 72.0, 24.0
#: Parts of the day that are told apart.
_PARTS = 6


class _Faded:
    """Sums by key that are halved by and by.

    Attributes:
        sums: [keys], as they were at ``until``.
        until: [keys] ms.
        half_life_ms: after which half is left.
    """

    def __init__(self, keys: int, half_life_hours: float) -> None:
        self.sums, self.until = np.zeros(keys), np.zeros(keys)
        self.half_life_ms = half_life_hours * MILLISECONDS_PER_HOUR

    def at(self, key: Integers, moment: Integers) -> Doubles:
        """[n] what is left at some moments, ms."""
        gone: Doubles = np.maximum(moment - self.until[key], 0) / self.half_life_ms
        return self.sums[key] * 0.5**gone

    def add(self, key: Integers, moment: Integers, amount: Doubles | float = 1.0) -> None:
        """Add to different keys."""
        self.sums[key] = self.at(key, moment) + amount
        self.until[key] = np.maximum(self.until[key], moment)


class Habits:
    """Counts opens, visits, engagements and waits; what it tells of a moment is of before it.

    Args:
        device: [U] by number; NaN for one that is not known.
        network: [U] likewise.
    """

    def __init__(self, device: NDArray[Any], network: NDArray[Any]) -> None:
        users = len(device)
        self._kinds = np.stack([device, network]).astype(np.float64)
        self._opens, self._visits = (_Faded(users, _HABIT_HOURS) for _ in range(2))
        self._opens_by, self._visits_by = (_Faded(users * _PARTS, _HABIT_HOURS) for _ in range(2))
        self._engaged = _Faded(users, _ENGAGED_HOURS)
        self._waits, self._waited = (_Faded(users, _HABIT_HOURS) for _ in range(2))
        self._last_open, self._last_visit, self._last_wait = np.full((3, users), np.nan)

    def numbers(self) -> Doubles:
        """[U, N] all that is counted, by which :meth:`restore` goes on."""
        users = self._kinds.shape[1]
        return np.concatenate([of.reshape(users, -1) for of in self._counted()], axis=1)

    def restore(self, numbers: Doubles) -> None:
        """Go on from what was counted, [U, N] of :meth:`numbers`.

        Raises:
            ValueError: it is not of so many users and counts.
        """
        counted = self._counted()
        widths = [of.size // len(numbers) for of in counted]
        if numbers.shape[1] != sum(widths):
            raise ValueError(f"{numbers.shape[1]} numbers of a user, not {sum(widths)}")
        parts = np.split(numbers, np.cumsum(widths)[:-1], axis=1)
        for of, part in zip(counted, parts, strict=True):
            of[:] = part.reshape(of.shape)

    def _counted(self) -> list[Doubles]:
        """The arrays that hold it, each [U] or [U * parts]."""
        faded = (
            *(self._opens, self._visits, self._opens_by, self._visits_by),
            *(self._engaged, self._waits, self._waited),
        )
        sums = [array for one in faded for array in (one.sums, one.until)]
        return [*sums, self._last_open, self._last_visit, self._last_wait]

    def features(
        self, user: Integers, moment: Integers, notified: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """[n, F] of opens at moments (ms)."""
        hour = moment % MILLISECONDS_PER_DAY / MILLISECONDS_PER_HOUR
        by, waited = _part(user, moment), self._waited.at(user, moment)
        waits = np.full(len(user), np.nan)
        np.divide(self._waits.at(user, moment), waited, out=waits, where=waited > 0)
        columns = [
            hour,
            notified,
            *self._kinds[:, user],
            self._opens.at(user, moment),
            self._visits.at(user, moment),
            self._opens_by.at(by, moment),
            self._visits_by.at(by, moment),
            (moment - self._last_open[user]) / MILLISECONDS_PER_HOUR,
            (moment - self._last_visit[user]) / MILLISECONDS_PER_HOUR,
            self._engaged.at(user, moment),
            waits,
            self._last_wait[user],
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def opened(self, user: Integers, moment: Integers) -> None:
        """Users have opened the app."""
        self._opens.add(user, moment)
        self._opens_by.add(_part(user, moment), moment)
        self._last_open[user] = moment

    def visited(self, user: Integers, moment: Integers) -> None:
        """Users have visited the service."""
        self._visits.add(user, moment)
        self._visits_by.add(_part(user, moment), moment)
        self._last_visit[user] = moment

    def engaged(self, user: Integers, moment: int) -> None:
        """Users, here as often as they did, have engaged with items by a moment."""
        some, times = np.unique(user, return_counts=True)
        self._engaged.add(some, np.full(len(some), moment), times.astype(np.float64))

    def engaged_until(self, user: Integers, moment: int, times: Integers) -> None:
        """One user has engaged with items at such times (ms) before a moment, and at no others."""
        gone = np.maximum(moment - times, 0) / self._engaged.half_life_ms
        self._engaged.sums[user], self._engaged.until[user] = (0.5**gone).sum(), moment

    def waited(self, user: Integers, moment: Integers, wait_ms: Doubles) -> None:
        """Users have waited for lists that were made at their visits; NaN for an unknown time."""
        known = wait_ms > 0
        user, moment, wait = user[known], moment[known], np.log(wait_ms[known])
        self._waits.add(user, moment, wait)
        self._waited.add(user, moment)
        self._last_wait[user] = wait


def _part(user: Integers, moment: Integers) -> Integers:
    """[n] the key of a user's part of the day."""
    share = moment % MILLISECONDS_PER_DAY / MILLISECONDS_PER_DAY
    part: Integers = user * _PARTS + (share * _PARTS).astype(np.int64)
    return part
