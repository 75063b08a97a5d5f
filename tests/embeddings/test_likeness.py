"""Likeness and collapse against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.embeddings.likeness import cosines, dimensions, nearest, overlap, overlap_by_chance


def test_cosines_by_hand() -> None:
    one = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    other = np.array([[6.0, 8.0], [0.0, 2.0], [-1.0, -1.0], [1.0, 0.0]])
    found = cosines(one, other)
    assert found[:3].tolist() == pytest.approx([1.0, 0.0, -1.0])
    assert math.isnan(found[3])


def test_nearest_by_hand_without_the_user_itself() -> None:
    angles = np.radians([0.0, 10.0, 30.0, 180.0])
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [5.0], [2.0], [1.0]]
    assert nearest(values, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_ties_are_in_row_order() -> None:
    assert nearest(np.ones((4, 3), np.float32), 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_overlap_by_hand() -> None:
    one, other = np.array([[1, 2], [1, 2], [1, 2]]), np.array([[2, 1], [2, 3], [3, 4]])
    assert overlap(one, other).tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_overlap_by_chance_by_hand() -> None:
    # 2 of 4 others: one in common on average, of 3 in the union
    assert overlap_by_chance(5, 2) == pytest.approx(1 / 3)


def test_dimensions_by_hand() -> None:
    # a cross: two directions, singular values √2 · 3 and √2 · 1
    cross = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 7.0
    rank, share = dimensions(cross)
    p = np.array([0.75, 0.25])
    assert rank == pytest.approx(float(np.exp(-(p * np.log(p)).sum())))
    assert share == pytest.approx(9 / 10)


def test_all_directions_alike_and_a_line() -> None:
    even = np.concatenate([np.eye(5), -np.eye(5)])
    assert dimensions(even) == pytest.approx((5.0, 0.2))
    line = np.outer(np.arange(6.0), [1.0, 2.0, 3.0, 4.0])
    assert dimensions(line) == pytest.approx((1.0, 1.0))
    assert dimensions(line[:, :1].repeat(50, axis=1)) == pytest.approx((1.0, 1.0))


def test_users_who_do_not_differ_have_no_dimensions() -> None:
    assert all(map(math.isnan, dimensions(np.ones((3, 4)))))
