"""Mixing sources and keeping the best, beside plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.funnel.candidates import ALIVE, Candidates, Offers, Share, mix

#: Of some requests, what a source found: different items, best first.
FOUND = st.lists(st.lists(st.integers(1, 9), max_size=6, unique=True), min_size=3, max_size=3)


def offers(found: list[list[int]]) -> Offers:
    items = [item for of_request in found for item in of_request]
    lengths = np.array([len(one) for one in found])
    return Offers(lengths, np.array(items, np.int64), np.zeros(len(items), np.float32))


def of_request(candidates: Candidates, request: int) -> list[tuple[int, int, float]]:
    chosen = candidates.request == request
    columns = (candidates.item, candidates.sources, candidates.fused)
    return list(zip(*(column[chosen].tolist() for column in columns), strict=True))


def test_the_example_of_the_docstring() -> None:
    mixed = mix([offers([[7, 3]]), offers([[3]])], [Share(10), Share(10, 2.0)], 1)
    assert of_request(mixed, 0) == [(3, 0b11, 1 / 62 + 2 / 61), (7, 0b01, 1 / 61)]


@given(FOUND, FOUND, st.integers(0, 5), st.integers(0, 5))
def test_mixing_is_what_a_loop_says(
    first: list[list[int]], second: list[list[int]], quota: int, other: int
) -> None:
    shares = [Share(quota, 0.7), Share(other, 1.3)]
    mixed = mix([offers(first), offers(second)], shares, 3)
    for request in range(3):
        expected: dict[int, tuple[int, float]] = {}
        for number, (found, share) in enumerate(zip((first, second), shares, strict=True)):
            for rank, item in enumerate(found[request][: share.quota]):
                bits, fused = expected.get(item, (0, 0.0))
                expected[item] = (bits | 1 << number, fused + share.weight / (61 + rank))
        wanted = [(item, bits, fused) for item, (bits, fused) in expected.items()]
        assert of_request(mixed, request) == sorted(wanted, key=lambda one: (-one[2], one[0]))
        alone = mix([offers([first[request]]), offers([second[request]])], shares, 1)
        assert of_request(alone, 0) == of_request(mixed, request)


@given(FOUND, st.integers(0, 4), st.data())
def test_the_best_are_kept_and_the_others_say_where_they_ended(
    found: list[list[int]], number: int, data: st.DataObject
) -> None:
    mixed = mix([offers(found)], [Share(9)], 3)
    values = st.sampled_from([0.0, 1.0, 2.0, float("nan")])
    score = np.array(
        data.draw(st.lists(values, min_size=len(mixed.item), max_size=len(mixed.item)))
    )
    gone = np.arange(len(score)) % 3 == 0
    mixed.leave_out(gone, 0)
    mixed.keep_best(score, number, 1)
    for request in range(3):
        there = np.flatnonzero((mixed.request == request) & ~gone & ~np.isnan(score))
        best = sorted(there.tolist(), key=lambda one: (-score[one], one))[:number]
        assert np.flatnonzero(mixed.alive & (mixed.request == request)).tolist() == sorted(best)
    assert (mixed.death[gone] == 0).all()
    assert set(mixed.death[~gone].tolist()) <= {ALIVE, 1}


def test_requests_without_candidates() -> None:
    mixed = mix([Offers.none(2)], [Share(9)], 2)
    mixed.keep_best(np.empty(0), 3, 0)
    assert mixed.lengths.tolist() == [0, 0]
    assert mix([], [], 1).lengths.tolist() == [0]
