"""Recall of stages and regret: by hand, and that its parts add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.serving.funnel.candidates import ALIVE, Candidates
from recsys.serving.funnel.losses import regret, stage_recall

NAN = float("nan")


def ended(deaths: list[list[int]], shown: list[list[int]] | None = None) -> Candidates:
    flat = [one for of_request in deaths for one in of_request]
    number = len(flat)
    position = np.zeros(number, np.int32)
    if shown is not None:
        position[:] = [one for of_request in shown for one in of_request]
    return Candidates(
        lengths=np.array([len(one) for one in deaths]),
        item=np.arange(number),
        sources=np.ones(number, np.uint32),
        fused=np.zeros(number),
        death=np.array(flat, np.int16),
        scores={},
        position=position,
        propensity=np.full(number, NAN, np.float32),
    )


def test_the_example_of_the_docstring() -> None:
    found = stage_recall(ended([[ALIVE, 1, ALIVE]]), np.array([3.0, 2.0, 1.0]), 1, 2)
    assert (found.hard.tolist(), found.soft.tolist()) == ([0.5], [0.8])


def test_what_ended_before_did_not_come_and_nothing_has_no_recall() -> None:
    candidates = ended([[0, ALIVE, 2], [0]])
    found = stage_recall(candidates, np.array([9.0, 2.0, 1.0, 5.0]), 1, 1)
    assert found.hard[0] == found.soft[0] == 1.0
    assert np.isnan(found.hard[1]) and np.isnan(found.soft[1])


def test_regret_by_hand() -> None:
    # worth 5, 4, 3; the best list of two in the world is worth 12. Mixing (0) loses the 5, the
    # first stage (1) nothing, the list (2) shows the 3 alone
    candidates = ended([[0, 2, ALIVE]], [[0, 0, 1]])
    parts = regret(candidates, np.array([5.0, 4.0, 3.0]), np.array([12.0]), 3, 2)
    assert parts.tolist() == [[3.0, 2.0, 0.0, 4.0]]


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 3),
            st.one_of(st.floats(-5, 5), st.just(NAN)),
        ),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_the_parts_of_regret_add_up_and_none_of_them_before_the_list_is_negative(
    of: list[tuple[int, float]], k: int
) -> None:
    deaths, value = [one for one, _ in of], np.array([one for _, one in of])
    place = iter(range(1, len(of) + 1))
    shown = [next(place) if d == ALIVE and not np.isnan(v) else 0 for d, v in of]
    candidates = ended([deaths], [[one if one <= k else 0 for one in shown]])
    positive = np.sort(value[value > 0])[::-1][:k].sum()
    parts = regret(candidates, value, np.array([positive + 1.0]), 4, k)
    listed = value[candidates.position > 0].sum()
    assert parts.sum() == pytest.approx(positive + 1.0 - listed, abs=1e-9)
    assert (parts[0, :-1] >= -1e-12).all()
