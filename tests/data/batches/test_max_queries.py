"""Evaluating on drawn users."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.batches.sequences.queries import _of_drawn_users


@given(st.lists(st.integers(0, 20), min_size=1, max_size=80), st.integers(1, 90))
def test_whole_users_are_drawn_and_not_more_than_wanted(users: list[int], most: int) -> None:
    user = np.array(users)
    drawn = _of_drawn_users(user, most)
    chosen = set(user[drawn].tolist())
    assert chosen, "there is always one"
    assert set(user[~drawn].tolist()).isdisjoint(chosen)
    assert drawn.sum() <= most or len(chosen) == 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 30))
def test_the_order_of_users_does_not_change_when_the_log_grows(users: list[int], most: int) -> None:
    """Users that come later take no place in front of the others' draws."""
    user = np.array(users)
    alone = _of_drawn_users(user, most)
    grown = _of_drawn_users(np.concatenate([user, [25]]), most)[:-1]
    assert set(user[grown].tolist()) <= set(user[alone].tolist())
