"""Repairs between versions against values by hand and what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.embeddings.alignment import low_rank_map, mean_of_versions, orthogonal_map


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_a_quarter_turn_is_found_by_hand() -> None:
    # (1, 0) → (0, 1) and (0, 1) → (−1, 0): the turn by 90 degrees
    source = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    target = np.array([[[0.0, 1.0]], [[-1.0, 0.0]]])
    found = orthogonal_map(source, target)
    np.testing.assert_allclose(found.matrix, [[[0.0, 1.0], [-1.0, 0.0]]], atol=1e-12)
    np.testing.assert_allclose(found.apply(np.array([[[2.0, 3.0]]])), [[[-3.0, 2.0]]], atol=1e-6)


def test_the_orthogonal_map_undoes_another_one_per_vector() -> None:
    source = drawn(40, 3, 8)
    turns = np.stack([np.linalg.qr(drawn(8, 8, seed=seed))[0] for seed in range(3)])
    target = np.einsum("unw,nwv->unv", source, turns)
    found = orthogonal_map(source, target)
    np.testing.assert_allclose(found.matrix, turns, atol=1e-10)
    np.testing.assert_allclose(found.apply(source), target, atol=1e-5)


def test_the_orthogonal_map_keeps_lengths_whatever_it_is_given() -> None:
    found = orthogonal_map(drawn(5, 2, 8), drawn(5, 2, 8, seed=1))  # fewer users than columns
    values = drawn(7, 2, 8, seed=2)
    lengths = np.linalg.norm(found.apply(values), axis=-1)
    np.testing.assert_allclose(lengths, np.linalg.norm(values, axis=-1), rtol=1e-6)


def test_an_offset_and_a_factor_are_found_by_hand() -> None:
    # y = 3 x + 5 on a line: the identity, a correction of 2 x, and 5
    source = np.array([0.0, 1.0, 2.0]).reshape(3, 1, 1)
    found = low_rank_map(source, 3 * source + 5, rank=1, ridge=0.0)
    np.testing.assert_allclose(found.matrix, [[[3.0]]], atol=1e-12)
    np.testing.assert_allclose(found.offset, [[5.0]], atol=1e-12)


def test_the_ridge_by_hand() -> None:
    # x = −1, 1 and y = 2 x: M = (XᵀX + λ)⁻¹ XᵀD = 2 / (2 + 0.5 · 2) = 2/3, as D = x
    source = np.array([-1.0, 1.0]).reshape(2, 1, 1)
    found = low_rank_map(source, 2 * source, rank=1, ridge=0.5)
    np.testing.assert_allclose(found.matrix, [[[1 + 2 / 3]]], atol=1e-12)


def test_the_full_rank_is_the_affine_map_of_least_squares() -> None:
    source, target = drawn(50, 1, 6), drawn(50, 1, 6, seed=1)
    found = low_rank_map(source, target, rank=6, ridge=0.0)
    with_one = np.concatenate([source[:, 0], np.ones((50, 1))], axis=1)
    expected, *_ = np.linalg.lstsq(with_one, target[:, 0], rcond=None)
    np.testing.assert_allclose(found.matrix[0], expected[:-1], atol=1e-10)
    np.testing.assert_allclose(found.offset[0], expected[-1], atol=1e-10)


def test_a_change_of_low_rank_is_undone_with_that_rank_and_not_with_less() -> None:
    source = drawn(60, 2, 8)
    change = drawn(2, 8, 2, seed=1) @ drawn(2, 2, 8, seed=2)  # rank 2
    target = source + np.einsum("unw,nwv->unv", source, change) + drawn(1, 2, 8, seed=3)
    enough = low_rank_map(source, target, rank=2, ridge=0.0)
    np.testing.assert_allclose(enough.apply(source), target, atol=1e-5)
    less = low_rank_map(source, target, rank=1, ridge=0.0)
    assert np.linalg.matrix_rank(less.matrix[0] - np.eye(8)) == 1
    errors = [np.square(one.apply(source) - target).sum() for one in (less, enough)]
    assert errors[0] > 1 > errors[1]


def test_users_who_do_not_differ_are_moved_by_the_offset() -> None:
    source = np.ones((4, 1, 3))
    found = low_rank_map(source, source + 2, rank=2)
    np.testing.assert_allclose(found.apply(source), source + 2)


def test_the_mean_is_over_the_versions_that_have_a_user() -> None:
    values = np.array([[2.0, 8.0, 5.0], [4.0, np.nan, 7.0]]).reshape(2, 3, 1, 1)
    known = np.array([[True, True, False], [True, False, False]])
    mean, has = mean_of_versions(values, known)
    assert mean.ravel().tolist() == pytest.approx([3.0, 8.0, 0.0])
    assert has.tolist() == [True, True, False]
