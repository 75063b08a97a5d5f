"""What is known of a user who opens the app, by hand and of the past alone."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.serving.funnel.prefetch.habits import FEATURES, Habits

HOUR = 3_600_000


def told(habits: Habits, user: int, hour: float, notified: bool = False) -> dict[str, float]:
    moment = np.array([round(hour * HOUR)])
    (row,) = habits.features(np.array([user]), moment, np.array([notified])).tolist()
    return dict(zip(FEATURES, row, strict=True))


def test_counts_fade_and_waits_are_remembered() -> None:
    habits, user = Habits(np.array([0, 2]), np.array([1, 0])), np.array([1])
    new = told(habits, 1, 30.5, notified=True)
    assert (new["hour"], new["notified"], new["device"], new["network"]) == (6.5, 1, 2, 0)
    assert new["opens"] == new["visits"] == new["engagements"] == 0
    assert all(np.isnan(new[name]) for name in ("hours_since_visit", "waits_mean", "waits_last"))
    for hour in (30, 102):  # three days apart, at the same hour of the day
        habits.opened(user, np.array([hour * HOUR]))
    habits.visited(user, np.array([102 * HOUR]))
    habits.engaged(np.array([1, 1, 1]), 102 * HOUR)
    habits.waited(user, np.array([30 * HOUR]), np.array([100.0]))
    habits.waited(user, np.array([102 * HOUR]), np.array([400.0]))
    habits.waited(user, np.array([103 * HOUR]), np.array([np.nan]))  # a list made in advance
    now = told(habits, 1, 102 + 72)
    assert now["opens"] == pytest.approx(0.5 * 1.5) and now["visits"] == pytest.approx(0.5)
    assert now["opens_by_hour"] == pytest.approx(0.75)
    assert told(habits, 1, 102 + 60)["opens_by_hour"] == 0  # another part of the day
    assert now["hours_since_open"] == now["hours_since_visit"] == 72
    assert now["engagements"] == pytest.approx(3 / 8)
    assert now["waits_last"] == pytest.approx(np.log(400))
    assert now["waits_mean"] == pytest.approx((0.5 * np.log(100) + np.log(400)) / 1.5)
    assert told(habits, 0, 30.5)["opens"] == 0  # somebody else


def test_habits_go_on_from_their_numbers() -> None:
    kinds = np.array([0, 2]), np.array([1, 0])
    habits = Habits(*kinds)
    both = np.array([0, 1])
    habits.opened(both, np.array([3, 9]) * HOUR)
    habits.visited(both[1:], np.array([9 * HOUR]))
    habits.waited(both[:1], np.array([3 * HOUR]), np.array([250.0]))
    habits.engaged(np.array([1, 1, 0]), 9 * HOUR)
    again = Habits(np.array([2]), np.array([0]))
    again.restore(habits.numbers()[1:])
    assert told(again, 0, 40) == pytest.approx(told(habits, 1, 40), nan_ok=True)
    with pytest.raises(ValueError, match="numbers of a user"):
        again.restore(np.zeros((1, 5)))
    again.engaged_until(np.array([0]), 30 * HOUR, np.array([6, 30]) * HOUR)
    assert told(again, 0, 30)["engagements"] == pytest.approx(1.5)
