"""Counts of what was known before a request: by hand, and without a look into the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset
from recsys.evaluation.baselines.counts import CountFeatures
from recsys.evaluation.baselines.rows import Rows
from tests.evaluation.baselines.planted import HOUR, START, impressions, own_log, prepared


def numbers(
    dataset: PreparedDataset, rows: Rows, gap_ms: int, mean: float
) -> dict[str, np.ndarray]:
    counts = CountFeatures(dataset, gap_ms)
    counts.mean = np.array([mean])  # what rates are smoothed towards
    asked = counts.asked(rows)
    return asked.shared() | asked.of_task(0)


def test_counts_by_hand(tmp_path: Path) -> None:
    # user, item, author, hour, liked
    shown = [(1, 7, 3, 0, 1), (2, 7, 3, 2, 0), (1, 8, 3, 4, 1), (1, 7, 3, 10, 0), (2, 9, 4, 50, 0)]
    log = pl.DataFrame(
        {
            "user_id": [u for u, *_ in shown] + [5, 5],
            "item_id": [i for _, i, *_ in shown] + [9, 9],
            "author_id": [a for _, _, a, *_ in shown] + [4, 4],
            "timestamp": [START + hour * HOUR for *_, hour, _ in shown]
            + [START + 70 * HOUR, START + 100 * HOUR],
        }
    )
    likes = np.array([liked == 1 for *_, liked in shown] + [False, False])
    dataset = prepared(own_log(likes, log), tmp_path / "prepared")
    fit = Rows.of(dataset, Split.FIT)
    assert len(fit) == 5
    mean = 2 / 5
    # the row at hour 10, with a gap of two hours, knows what was shown before hour 8; a label is
    # known an hour after its row
    found = {name: values[3] for name, values in numbers(dataset, fit, 2 * HOUR, mean).items()}
    assert found["rows of user"] == 2
    assert found["rows of item"] == 2
    assert found["rows of author"] == 3
    assert found["rows of user_item"] == 1
    assert found["rows of user_author"] == 2
    assert found["impressions of user"] == 2
    assert found["actions of user_item"] == found["liked of user_item"] == 1
    assert "negative actions of user" not in found  # the log has none
    assert found["share of actions of user_item"] == pytest.approx(1 / (2 + 10))
    of_user = (2 + 10 * mean) / 12
    assert found["liked rate of user"] == pytest.approx(of_user)
    assert found["liked rate of item"] == pytest.approx((1 + 10 * mean) / 12)
    assert found["liked rate of user_item"] == pytest.approx((1 + 10 * of_user) / 11)
    assert found["item age, days"] == pytest.approx(8 / 24)
    assert found["hour"] == 10
    # with a gap of eight hours, hour 2 is not strictly before hour 2, and its label is not known
    found = {name: values[3] for name, values in numbers(dataset, fit, 8 * HOUR, mean).items()}
    assert found["rows of item"] == 1
    found = {name: values[3] for name, values in numbers(dataset, fit, 6 * HOUR, mean).items()}
    assert (found["rows of user"], found["actions of user"]) == (1, 1)
    # at hour 5.5 all three are rows, and the like an hour and a half ago is known
    found = {
        name: values[3] for name, values in numbers(dataset, fit, int(5.5 * HOUR), mean).items()
    }
    assert found["rows of user"] == 2
    assert found["liked rate of user"] == pytest.approx((1 + 10 * mean) / 11)


def test_nothing_of_the_row_or_of_what_comes_after_is_counted(tmp_path: Path) -> None:
    shown = impressions(0)
    draw = np.random.default_rng(1)
    likes = draw.random(len(shown)) < 0.3
    gap = 12 * HOUR
    moment = START + 12 * 24 * HOUR
    # from the moment on (less the gap) everybody likes what they would not
    late = (shown["timestamp"] >= moment - gap - HOUR).to_numpy()
    changed = np.where(late, ~likes, likes)
    one, other = (
        prepared(own_log(marks, shown), tmp_path / name)
        for name, marks in (("one", likes), ("other", changed))
    )
    rows = Rows.of(one, Split.FIT)
    before = rows.at(np.flatnonzero(rows.time <= moment))
    assert len(before) < len(rows)
    found, expected = (numbers(dataset, before, gap, 0.3) for dataset in (other, one))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_what_was_requested_but_not_shown_yet_is_not_counted(tmp_path: Path) -> None:
    # requested and shown at: the first row waits for five hours
    moments = [(0, 5), (3, 3), (6, 6), (70, 70), (100, 100)]
    log = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": [7, 8, 7, 9, 9],
            "request_time": [START + asked * HOUR for asked, _ in moments],
            "timestamp": [START + shown * HOUR for _, shown in moments],
        }
    )
    likes = np.array([True, False, False, False, False])
    fit = Rows.of(dataset := prepared(own_log(likes, log), tmp_path / "prepared"), Split.FIT)
    assert fit.time.tolist() == [START, START + 3 * HOUR, START + 6 * HOUR]
    found = numbers(dataset, fit, 0, 0.3)
    assert found["rows of user"].tolist() == [0, 0, 2]
    assert found["liked rate of item"].tolist() == pytest.approx([0.3] * 3)
