"""Smoothed means, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.baselines.means import FitMeans, observed_mean
from tests.evaluation.baselines.rows_by_hand import SIZES, rows

NAN = float("nan")

#: A binary task and a regression task; the fit means are 0.5 and 6.
FIT = rows(
    user=[1, 1, 2, 2, 0],
    item=[3, 4, 3, 0, 4],
    author=[1, 2, 1, 0, 2],
    labels=[[1, 4], [1, NAN], [0, 8], [NAN, NAN], [0, NAN]],
)


def test_the_fit_mean_is_that_of_observed_labels() -> None:
    np.testing.assert_allclose(observed_mean(FIT.labels), [0.5, 6])
    assert np.isnan(observed_mean(np.full((2, 1), NAN, np.float32))).all()
    means = FitMeans(FIT, SIZES)
    np.testing.assert_allclose(means.all_rows(FIT), [[0.5, 6]] * 5)


def test_a_users_mean_is_smoothed_towards_that_of_all() -> None:
    asked = rows(user=[1, 2, 7, 0], item=[3] * 4, labels=[[NAN, NAN]] * 4)
    expected = [
        [(2 + 10 * 0.5) / 12, (4 + 10 * 6) / 11],
        [(0 + 10 * 0.5) / 11, (8 + 10 * 6) / 11],
        [0.5, 6],  # never met
        [0.5, 6],  # unknown users are not one user
    ]
    np.testing.assert_allclose(FitMeans(FIT, SIZES).by("user", asked), expected)


def test_an_items_mean_likewise() -> None:
    asked = rows(user=[1, 1, 1], item=[3, 4, 19], labels=[[NAN, NAN]] * 3)
    expected = [
        [(1 + 5) / 12, (12 + 60) / 12],
        [(1 + 5) / 12, 6],  # no row of item 4 has an observed number
        [0.5, 6],
    ]
    np.testing.assert_allclose(FitMeans(FIT, SIZES).by("item", asked), expected)


def test_a_pairs_mean_is_smoothed_towards_the_users() -> None:
    asked = rows(user=[1, 1, 7, 1], item=[3] * 4, author=[1, 3, 1, 0], labels=[[NAN, NAN]] * 4)
    of_user = [7 / 12, 64 / 11]
    expected = [
        [(1 + 10 * of_user[0]) / 11, (4 + 10 * of_user[1]) / 11],
        of_user,  # never met
        [0.5, 6],
        of_user,  # no author
    ]
    np.testing.assert_allclose(FitMeans(FIT, SIZES).by("user_author", asked), expected)


@pytest.mark.parametrize("group", ["user", "user_topic"])
def test_without_fit_rows_nothing_is_known(group: str) -> None:
    assert np.isnan(FitMeans(FIT.at(slice(0)), SIZES).by(group, FIT)).all()
