"""Counts before a moment, against counting one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.baselines.rows import NO_KEY
from recsys.evaluation.baselines.timed_counts import TimedCounts

KEYS = st.sampled_from([NO_KEY, 0, 1, 5, 2**40])
HAPPENED = st.lists(st.tuples(KEYS, st.integers(-3, 6), st.integers(-9, 9)), max_size=40)
ASKED = st.lists(st.tuples(KEYS | st.just(7), st.integers(-4, 7)), max_size=90)


@given(HAPPENED, ASKED)
def test_what_happened_strictly_before(
    happened: list[tuple[int, int, int]], asked: list[tuple[int, int]]
) -> None:
    happened.sort(key=lambda one: one[1])
    key, time, value = np.array(happened, np.int64).reshape(-1, 3).T
    counts = TimedCounts(key, time)
    keys, moments = np.array(asked, np.int64).reshape(-1, 2).T
    before = counts.before(keys, moments)
    expected = [
        [v for k, t, v in happened if k == one and k != NO_KEY and t < moment]
        for one, moment in asked
    ]
    assert before.count.tolist() == [len(one) for one in expected]
    assert counts.sums(value, before).tolist() == [sum(one) for one in expected]
