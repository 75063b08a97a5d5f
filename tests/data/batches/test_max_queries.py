"""Evaluating on drawn queries."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.batches.sequences.queries import _drawn


@pytest.mark.parametrize(("number", "most"), [(90, 17), (90, 90), (5, 90), (1, 1)])
def test_as_many_are_drawn_as_wanted(number: int, most: int) -> None:
    drawn = _drawn(number, most)
    assert len(drawn) == min(number, most) == len(np.unique(drawn))
    assert (np.diff(drawn) > 0).all() and drawn[0] >= 0 and drawn[-1] < number
    assert np.array_equal(drawn, _drawn(number, most))


def test_queries_of_all_times_are_drawn_alike() -> None:
    tenths = np.bincount(_drawn(100_000, 10_000) // 10_000, minlength=10)
    assert (abs(tenths - 1_000) < 130).all()  # over four deviations of a draw


def test_of_a_log_that_grows_no_others_are_drawn_among_the_first() -> None:
    alone, grown = _drawn(1_000, 100), _drawn(1_500, 100)
    assert set(grown[grown < 1_000]) < set(alone)
