"""Counts of items and what is expected by them, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.serving.funnel.counts import ItemCounts, favourites, taste

HOUR = 3_600_000


def counted() -> ItemCounts:
    """Item 0 was shown twice and engaged with once in group 1, item 1 shown once in group 2."""
    counts = ItemCounts(2, 3, np.array([True, False]), since=0)
    counts.add_shown(np.array([1, 1, 2]), np.array([0, 0, 1]))
    counts.add_engaged(np.array([1]), np.array([0]))
    counts.add_done(np.array([0, 0]), np.array([[1.0, 0.0], [0.0, 30.0]]))
    return counts


def test_popularity_is_told_by_group_and_halved_in_six_hours() -> None:
    counts, items = counted(), np.arange(3)
    assert counts.popularity(items).tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert counts.mean_rate() == 2 / 13
    assert counts.mean_rate(counts.kept(6 * HOUR)) == 1.5 / 11.5
    counts.advance(6 * HOUR)
    assert counts.popularity(items).tolist() == [[0.5, 0, 0], [0.5, 0, 0], [0, 0, 0]]
    assert counts.left(np.array([6 * HOUR, 1, 7 * HOUR])).tolist() == [1, 0.5, 1]
    assert counts.mean_rate() == 1.5 / 11.5
    counts.advance(HOUR)  # time does not go back
    assert counts.popularity(items)[0, 0] == 0.5
    assert counts.engagements(items).tolist() == counts.popularity(items)[0].tolist()


def test_rates_are_drawn_to_those_of_all_items_and_follow_the_taste() -> None:
    counts = counted()
    of_all = np.array([1.1, 30.1]) / 13
    rates = (np.array([1.0, 30.0]) + 20 * of_all) / 22
    found = counts.expected(np.array([0, 2]), np.array([2.0, 1.0]))
    assert found[0] == pytest.approx(2 * rates)
    assert found[1] == pytest.approx(of_all)  # nothing is known of it
    assert counts.expected(np.array([0]), np.array([1e3]))[0, 0] == 1  # a probability
    assert counts.affinity(np.array([0]), np.array([3.0])) == pytest.approx(3 * 2 / 22)
    assert counts.affinity(np.array([0]), np.array([3.0]), 0.5) == pytest.approx(3 * 1.5 / 21)


def test_a_user_of_whom_nothing_is_known_has_the_taste_of_all() -> None:
    found = taste(np.array([0.0, 5.0]), np.array([0.0, 10.0]), 0.1)
    assert found == pytest.approx([1, 7 / 3])


def test_favourites_come_in_order_and_none_is_no_favourite() -> None:
    engaged = np.array([[0, 2, 0, 3], [0, 0, 0, 0]], np.float64)
    assert favourites(engaged).tolist() == [[3, 1, 0, 0], [0, 0, 0, 0]]
