"""Counts of events by what they share with candidates: by hand, and as they are defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.features import cross_counts as module
from recsys.data.features.cross_counts import NEVER, Candidates, cross_counts, history_counts

SIZES = {"author": 10}


def history(lengths, times, authors):
    return {
        "lengths": np.array(lengths),
        "timestamp": np.array(times, np.int64),
        "author": np.array(authors, np.int32),
    }


def test_the_example_by_hand():
    events = history([3], [-72 * HOUR, -2 * HOUR, -HOUR], [7, 7, 9])
    candidates = Candidates(np.array([3]), {"author": np.array([7, 9, 8])})
    action = np.array([0, 0, 1])  # liked, liked, skipped
    found = cross_counts(events, action, 2, np.array([0]), candidates, SIZES, [24, None])
    assert found.counts["author"][:, :, 0].tolist() == [[1, 0, 0], [2, 0, 0]]
    assert found.counts["author"][:, :, 1].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert found.hours["author"][:, 0].tolist() == [2, NEVER, NEVER]
    assert found.hours["author"][:, 1].tolist() == [NEVER, 1, NEVER]


EVENT = st.tuples(st.integers(1, 90), st.integers(0, 9), st.integers(0, 2))
REQUEST = st.tuples(st.lists(EVENT, max_size=12), st.lists(st.integers(0, 9), max_size=6))


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUEST, min_size=1, max_size=5), st.sampled_from([8, 1 << 20]))
def test_counts_and_hours_are_as_defined(requests, entries):
    requests = [(sorted(events, reverse=True), asked) for events, asked in requests]
    lengths = [len(events) for events, _ in requests]
    flat = [event for events, _ in requests for event in events]
    cutoff = np.arange(len(requests)) * 1000 * HOUR
    ends = np.repeat(cutoff, lengths)
    times = ends - np.array([hours * HOUR for hours, *_ in flat], np.int64)
    events = history(lengths, times, [author for _, author, _ in flat])
    action = np.array([action for *_, action in flat], np.int64)
    asked = np.array([author for _, wanted in requests for author in wanted], np.int64)
    rows = np.array([len(wanted) for _, wanted in requests])
    windows = [None, 24]
    candidates = Candidates(rows, {"author": asked})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TABLE_ENTRIES", entries)
        found = cross_counts(events, action, 3, cutoff, candidates, SIZES, windows)
    whole = history_counts(events, action, 3, cutoff, windows)
    row = 0
    for request, (events, wanted) in enumerate(requests):
        for code in range(3):
            own = [h for h, _, c in events if c == code]
            expected = [len(own), sum(h <= 24 for h in own)]
            assert whole[:, request, code].tolist() == expected
        for author in wanted:
            for code in range(3):
                mine = [h for h, a, c in events if a == author != 0 and c == code]
                assert found.counts["author"][0, row, code] == len(mine)
                assert found.counts["author"][1, row, code] == sum(h <= 24 for h in mine)
                assert found.hours["author"][row, code] == min(mine, default=NEVER)
            row += 1
