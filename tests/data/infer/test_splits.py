from __future__ import annotations

from collections import Counter

import pytest

from recsys.data.infer.splits import suggested

DAY = 86_400_000
FIRST = 19_844 * DAY  # 1 May 2024


def days(*counts: int) -> Counter[int]:
    return Counter({19_844 + place: count for place, count in enumerate(counts)})


def test_whole_days_that_hold_a_tenth_of_the_events_each() -> None:
    found = suggested(days(*[10] * 20), 0, True, False, FIRST)
    assert found.options == {"split": "time", "choose_days": 2, "report_days": 2}
    assert "20 days from 2024-05-01; the last 2 hold 10%" in found.why
    found = suggested(days(50, 50, 50, 30, 15, 5), 0, True, False, FIRST)
    assert found.options == {"split": "time", "choose_days": 1, "report_days": 2}


def test_few_days_are_split_by_shares_of_the_time() -> None:
    for log in (days(5, 5, 5, 5), days(5), days(100, 1, 1, 1, 1, 1)):
        found = suggested(log, 0, True, False, FIRST)
        assert found.options == {"split": "time", "choose_fraction": 0.1, "report_fraction": 0.2}


@pytest.mark.parametrize(("usable", "ratings"), [(False, False), (True, True)])
def test_ratings_and_logs_without_times_leave_the_last_event_out(
    usable: bool, ratings: bool
) -> None:
    found = suggested(days(*[10] * 20), 0, usable, ratings, FIRST)
    assert found.options == {"split": "last", "last_events": 1}


def test_events_of_the_future_do_not_move_the_split() -> None:
    found = suggested(days(*[10] * 20), 3, True, False, FIRST)
    assert found.options == {
        "split": "time",
        "fit_until": "2024-05-17",
        "choose_until": "2024-05-19",
    }
