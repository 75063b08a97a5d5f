"""Buckets by hand, and that no step is told what comes after it."""

from __future__ import annotations

import torch

from recsys.nn.sequence.relative_time import (
    BOUNDARIES,
    NUM_BUCKETS,
    PreviousGap,
    RequestGap,
    gap_buckets,
)

SECOND = 1_000
DAY = 86_400_000


def test_buckets_are_powers_of_two_seconds() -> None:
    gaps = [-5, 0, 999, 1_000, 1_999, 2_000, 3_999, 4_000, 60_000, DAY, 400 * DAY]
    # 60 s lies in [32, 64): k = 5; a day, 86,400 s, in [65,536, 131,072): k = 16
    expected = [1, 1, 1, 2, 2, 3, 3, 4, 7, 18, NUM_BUCKETS - 1]
    later = torch.tensor(gaps) + 7_000
    earlier = torch.full_like(later, 7_000)
    known = torch.ones(len(gaps), dtype=torch.bool)
    boundaries = torch.tensor(BOUNDARIES)
    assert gap_buckets(later, earlier, known, boundaries).tolist() == expected
    assert gap_buckets(later, earlier, ~known, boundaries).tolist() == [0] * len(gaps)


def test_previous_gap_looks_back_within_the_user_only() -> None:
    module = PreviousGap(3)
    timestamp = torch.tensor([0, 5, 5 + 60, 1_000_000, 1_000_008]) * SECOND
    lengths = torch.tensor([3, 0, 2])
    # first event; 5 s in [4, 8); 60 s in [32, 64); first event; 8 s in [8, 16)
    expected = module.embedding.weight[torch.tensor([0, 4, 7, 0, 5])]
    assert torch.equal(module(timestamp, lengths), expected)


def test_a_planted_leak_is_not_seen_by_earlier_steps() -> None:
    """The time of event t + 1 changes the features of t + 1 and t + 2, and of no step before."""
    module = PreviousGap(3)
    lengths = torch.tensor([4, 1])
    timestamp = torch.tensor([0, 10, 20, 30, 5]) * SECOND
    changed = timestamp.clone()
    changed[2] = 29 * SECOND
    same = (module(timestamp, lengths) == module(changed, lengths)).all(dim=1)
    assert same.tolist() == [True, True, False, False, True]


def test_request_gap_starts_as_the_identity_and_scales_by_the_last_events_bucket() -> None:
    module = RequestGap(2)
    states = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    timestamp = torch.tensor([0, 50, 92]) * SECOND
    lengths = torch.tensor([2, 0, 1])
    request_time = torch.full([3], 100 * SECOND)
    arguments = (states, timestamp, lengths, request_time)
    assert torch.equal(module(*arguments), states)
    with torch.no_grad():
        weight = module.scale_and_shift.weight
        weight[7] = torch.tensor([0.5, -1.0, 10.0, 20.0])  # 50 s since the last event
        weight[0] = torch.tensor([1.0, 0.0, 0.0, 7.0])  # no event
        weight[5] = torch.tensor([0.0, 0.0, -5.0, 0.0])  # 8 s
    expected = [[1 * 1.5 + 10, 2 * 0 + 20], [3 * 2, 4 + 7], [5 - 5, 6]]
    assert module(*arguments).tolist() == expected


def test_request_gap_of_a_batch_without_any_event() -> None:
    module = RequestGap(2)
    empty = torch.empty(0, dtype=torch.int64)
    states = torch.ones(2, 2)
    request_time = torch.tensor([5, 6])
    assert torch.equal(module(states, empty, torch.tensor([0, 0]), request_time), states)


def test_both_script() -> None:
    timestamp, lengths = torch.tensor([0, 60_000, 5]), torch.tensor([2, 1])
    gap, request = PreviousGap(3), RequestGap(2)
    torch.nn.init.normal_(request.scale_and_shift.weight)
    scripted = torch.jit.script(gap)
    assert torch.equal(scripted(timestamp, lengths), gap(timestamp, lengths))
    arguments = (torch.randn(2, 2), timestamp, lengths, torch.tensor([90_000, 90_000]))
    assert torch.equal(torch.jit.script(request)(*arguments), request(*arguments))
