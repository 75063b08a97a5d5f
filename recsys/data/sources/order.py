"""Splits by order: leave-one-out, the last events of each user, or users of their own.

Whatever splits a data set splits it by time, so a log whose splits are not by time gets *pseudo
times*: every user's events lie one second apart in their order, those of a split in a period of
its own. Order is all that such times say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import polars as pl

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import MILLISECONDS_PER_DAY, MILLISECONDS_PER_SECOND, Split

#: 1 January 2000, UTC: the pseudo time of everybody's first event.
FIRST_MOMENT = 946_684_800_000
#: Room for 8.64 million events of one user.
FIT_DAYS = 100

_SPLITS = (Split.FIT, Split.CHOOSE, Split.REPORT)


def order_bounds(evaluated_days: int) -> dict[str, tuple[int, int]]:
    """``[first, last)`` pseudo time in ms per split.

    Args:
        evaluated_days: length of the choose and of the report period.
    """
    starts = [FIRST_MOMENT]
    for days in (FIT_DAYS, evaluated_days, evaluated_days):
        starts.append(starts[-1] + days * MILLISECONDS_PER_DAY)
    return {split: (starts[place], starts[place + 1]) for place, split in enumerate(_SPLITS)}


def last_events_apart(user: pl.Series, counted: pl.Series, last: int) -> pl.Series:
    """The split of each event: of each user the last ones are reported, those before chosen on.

    Users with too few counted events for one of them to be left in the fit split are in it whole.

    Args:
        user: of each event, a user's events in their order.
        counted: whether an event is one of those that are left out; another one is in the split of
            the counted one before it.
        last: how many are reported, and how many before them chosen on.

    Returns:
        Names of splits.
    """
    events = pl.DataFrame({"user": user, "counted": counted.cast(pl.Int64)})
    after = pl.col("counted").cum_sum(reverse=True).over("user")
    left = after + 1 - pl.col("counted")
    evaluated = pl.col("counted").sum().over("user") > 2 * last
    split = (
        pl.when(~evaluated | (left > 2 * last))
        .then(pl.lit(str(Split.FIT)))
        .when(left > last)
        .then(pl.lit(str(Split.CHOOSE)))
        .otherwise(pl.lit(str(Split.REPORT)))
    )
    return events.select(split).to_series()


def users_apart(users: pl.Series, choose: float, report: float) -> dict[str, pl.Series]:
    """The users of each split, at least one in each; who is where depends on the ids alone.

    Args:
        users: all, each once.
        choose: share that is chosen on.
        report: share that is reported.

    Raises:
        ConfigError: there are too few users.
    """
    marks = (hashlib.blake2b(str(user).encode(), digest_size=8) for user in users)
    digests = pl.Series([mark.digest() for mark in marks], dtype=pl.Binary)
    ordered = users.gather(digests.arg_sort())
    held = max(1, round(len(users) * report))
    chosen = max(1, round(len(users) * choose))
    if held + chosen >= len(users):
        raise ConfigError(
            f"options.split=users leaves {held} of {len(users)} users for the report and {chosen} "
            "to choose on, so that none is left to fit; lower options.report_users and "
            "options.choose_users, or split=last."
        )
    return {
        Split.REPORT: ordered[:held],
        Split.CHOOSE: ordered[held : held + chosen],
        Split.FIT: ordered[held + chosen :],
    }


def pseudo_times(
    user: pl.Series, split: pl.Series, bounds: Mapping[str, tuple[int, int]]
) -> pl.Series:
    """A second after the user's event before it, from the first moment of its split on, in ms.

    Args:
        user: of each event, a user's events in their order.
        split: of each event.
        bounds: of ``order_bounds``.

    Raises:
        DataError: a user has more events than a split has seconds.
    """
    events = pl.DataFrame({"user": user, "split": split})
    starts = {str(name): first for name, (first, _) in bounds.items()}
    lasts = {str(name): last for name, (_, last) in bounds.items()}
    position = pl.int_range(pl.len()).over("user", "split")
    begin = pl.col("split").replace_strict(starts, return_dtype=pl.Int64)
    times = events.select(
        time=begin + position * MILLISECONDS_PER_SECOND,
        last=pl.col("split").replace_strict(lasts, return_dtype=pl.Int64),
    )
    if (times["time"] >= times["last"]).any():
        most = int(events.group_by("user").len()["len"].max())  # type: ignore[arg-type]
        raise DataError(
            f"a user has {most:,} events, more than a split by order has room for; leave out who "
            "is no person, or split by time."
        )
    return times["time"]
