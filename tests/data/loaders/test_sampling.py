"""Batches of an epoch: complete, bounded, reproducible, the same number on every rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.data.loaders.sampling import BatchBounds, RequestBatchSampler


def sampler(events, requests=8, max_events=100, *, shuffle=True, rank=0, num_ranks=1, window=32):
    return RequestBatchSampler(
        np.asarray(events, np.int64),
        BatchBounds(requests, max_events),
        shuffle=shuffle,
        window=window,
        seed=1,
        rank=rank,
        num_ranks=num_ranks,
    )


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(st.integers(0, 150), min_size=4, max_size=200),
    requests=st.integers(1, 10),
    max_events=st.integers(1, 200),
    num_ranks=st.integers(1, 4),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_request_once_within_bounds(events, requests, max_events, num_ranks, shuffle, epoch):
    per_rank = [
        sampler(events, requests, max_events, shuffle=shuffle, rank=rank, num_ranks=num_ranks)
        for rank in range(num_ranks)
    ]
    batches = [one.batches(epoch) for one in per_rank]
    assert {len(steps) for steps in batches} == {len(per_rank[0])}
    everything = [batch for steps in batches for batch in steps]
    assert sorted(np.concatenate(everything).tolist()) == list(range(len(events)))
    assert min(len(batch) for batch in everything) > 0
    if len(events) < len(everything) + num_ranks:
        return  # too few requests to fill a last step: its batches may exceed their bounds
    for batch in everything:
        assert len(batch) <= requests + 1
        lengths = np.asarray(events)[batch]
        assert lengths.sum() - lengths.max() <= max_events


def test_equal_requests_give_full_batches():
    assert [len(batch) for batch in sampler([0] * 24).batches(0)] == [8, 8, 8]
    assert sorted(len(batch) for batch in sampler([0] * 20).batches(0)) == [6, 7, 7]


def test_batches_hold_histories_of_similar_length():
    """Unsorted batches of 8 of these 512 would nearly always span more than half the range."""
    events = np.random.default_rng(0).integers(0, 1_000, 512)
    spans = [np.ptp(events[batch]) for batch in sampler(events, 8, 10**6, window=512).batches(0)]
    assert max(spans) < 100


def test_epochs_differ_and_repeat():
    one = sampler(range(64))
    first, again, second = one.batches(0), sampler(range(64)).batches(0), one.batches(1)
    assert [b.tolist() for b in first] == [b.tolist() for b in again]
    assert [b.tolist() for b in first] != [b.tolist() for b in second]
    kept = sampler([0] * 64, shuffle=False)
    assert np.concatenate(kept.batches(3)).tolist() == list(range(64))


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_state_continues_in_the_middle(taken):
    one = sampler([0] * 64)
    one.set_epoch(3)
    iterator = iter(one)
    for _ in range(taken):
        next(iterator)
    state = iterator.state_dict()
    other = iter(sampler([0] * 64))
    other.load_state_dict(state)
    assert [b.tolist() for b in other] == [b.tolist() for b in iterator]
    assert state == {"epoch": 3, "position": taken, "steps": 8}


def test_state_of_a_finished_epoch_starts_the_next():
    one = sampler([0] * 64)
    iterator = iter(one)
    assert len(list(iterator)) == 8
    other = iter(sampler([0] * 64))
    other.load_state_dict(iterator.state_dict())
    assert [b.tolist() for b in other] == [b.tolist() for b in one.batches(1)]


def test_state_of_other_ranks_goes_on_at_the_same_share():
    iterator = iter(sampler([0] * 64))  # 8 steps
    for _ in range(6):
        next(iterator)
    other = iter(sampler([0] * 64, num_ranks=2))  # 4 steps
    other.load_state_dict(iterator.state_dict())
    assert len(list(other)) == 1


def test_empty_split_has_no_batches_and_too_few_requests_are_refused():
    assert len(sampler([])) == 0
    assert list(sampler([])) == []
    with pytest.raises(ConfigError, match="cannot be spread over 2 processes"):
        sampler([5], num_ranks=2)
