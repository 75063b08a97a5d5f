"""How a log is best split, by the times it has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from recsys.data.contract.moments import to_text

#: A log of so many days is split by whole days.
_LEAST_DAYS = 5
#: Events that choosing and reporting each get at least.
_SHARE = 0.1


@dataclass(frozen=True)
class Splitting:
    """Options of the split and why they are suggested.

    Attributes:
        options: of a description, in their order.
        why: in words.
    """

    options: dict[str, str | int | float]
    why: str


def suggested(
    days: Counter[int], future: int, usable_times: bool, ratings: bool, first: int | None
) -> Splitting:
    """The split of a log.

    Args:
        days: events by day since 1970 (UTC), none of the future.
        future: events of the future.
        usable_times: whether the log has times that differ.
        ratings: whether its rows are ratings.
        first: moment of the first event, ms; None where there are no times.
    """
    if not usable_times or first is None:
        return Splitting(
            {"split": "last", "last_events": 1},
            "no times that differ: each user's last event is reported, the one before it chosen on",
        )
    if ratings:
        return Splitting(
            {"split": "last", "last_events": 1},
            "a log of ratings: as papers do, each user's last one is reported, the one before it "
            "chosen on",
        )
    num_days = max(days) - min(days) + 1
    if num_days < _LEAST_DAYS:
        return Splitting(
            {"split": "time", "choose_fraction": 0.1, "report_fraction": 0.2},
            f"{num_days} day{'s' * (num_days > 1)} are too few to split by: shares of the time",
        )
    total = sum(days.values())
    report = _last_days(days, max(days), total)
    choose = _last_days(days, max(days) - report, total)
    if report + choose >= num_days:
        return Splitting(
            {"split": "time", "choose_fraction": 0.1, "report_fraction": 0.2},
            "most events are on few days: shares of the time",
        )
    if future:  # whole days would be counted from the last event, which is not of the log's time
        return Splitting(
            {
                "split": "time",
                "fit_until": str(_date(max(days) - report - choose + 1)),
                "choose_until": str(_date(max(days) - report + 1)),
            },
            f"{future:,} events lie in the future, so days are not counted from the end",
        )
    reported = sum(count for day, count in days.items() if day > max(days) - report)
    return Splitting(
        {"split": "time", "choose_days": choose, "report_days": report},
        f"{num_days:,} days from {to_text(first)[:10]}; the last {report} hold "
        f"{reported / total:.0%} of the events",
    )


def _last_days(days: Counter[int], last: int, total: int) -> int:
    """Days up to ``last`` that hold the share of events."""
    wanted, count, found = _SHARE * total, 0, 0
    while found < wanted and last - count >= min(days):
        found += days[last - count]
        count += 1
    return max(1, count)


def _date(day: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date()
