"""Numbers of candidates: by hand, without a look into the future, and the same alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import Split
from recsys.data.features.candidate_features import CandidateFeatures
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.dataset import PreparedDataset
from tests.evaluation.baselines.planted import HOUR, START, impressions, own_log, prepared


def of_split(features: CandidateFeatures, dataset: PreparedDataset, split: Split) -> np.ndarray:
    store = dataset.requests(split)
    return features.compute(store.user, store.request_time, np.diff(store.offsets), store.item)


def test_numbers_by_hand(tmp_path: Path) -> None:
    # user, item, author, hour, liked
    shown = [(1, 7, 3, 0, 1), (2, 7, 3, 2, 0), (1, 8, 3, 4, 1), (1, 7, 3, 30, 0), (2, 9, 4, 50, 0)]
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
    features = CandidateFeatures(dataset, CandidateFeatureConfig(windows_hours=[24]))
    assert features.actions == ("liked",)
    found = of_split(features, dataset, Split.FIT)
    assert found.shape == (5, len(features.names))
    row = dict(zip(features.names, found[3].tolist(), strict=True))
    # before hour 30: three impressions with two likes, which were given a minute after them
    expected = (2 + 1) / (3 + 10)
    assert row["item age"] == pytest.approx(np.log1p(30))
    assert row["item is new"] == 0
    assert row["item: impressions, all"] == pytest.approx(np.log1p(2))
    assert row["item: impressions, 24 h"] == 0
    lift = np.log((1 + 10 * expected) / (2 + 10) / expected)
    assert row["item: liked lift, all"] == pytest.approx(lift, abs=1e-6)
    assert row["author: impressions, all"] == pytest.approx(np.log1p(3))
    own = (2 + 10 * expected) / (2 + 10)
    assert row["user: liked lift, all"] == pytest.approx(np.log(own / expected), abs=1e-6)
    assert row["user: liked lift, 24 h"] == 0
    assert row["user and item: impressions, all"] == pytest.approx(np.log1p(1))
    assert row["user and item: liked, all"] == pytest.approx(np.log1p(1))
    of_pair = (1 + 10 * own) / (1 + 10)
    assert row["user and item: liked lift, all"] == pytest.approx(np.log(of_pair / own), abs=1e-6)
    assert row["user and item: last impression"] == pytest.approx(1 / (1 + 30 / 24))
    assert row["user and author: liked, all"] == pytest.approx(np.log1p(2))
    assert row["user and author: last impression"] == pytest.approx(1 / (1 + 26 / 24))
    first = dict(zip(features.names, found[0].tolist(), strict=True))
    assert first["item is new"] == 1
    assert all(value == 0 for name, value in first.items() if name != "item is new")


def test_nothing_of_the_moment_or_later_is_seen(tmp_path: Path) -> None:
    log = impressions(0)
    likes = np.random.default_rng(1).random(len(log)) < 0.3
    moment = START + 12 * 24 * HOUR
    later = log["timestamp"].to_numpy() >= moment
    config = CandidateFeatureConfig()
    whole = CandidateFeatures(prepared(own_log(likes, log), tmp_path / "a"), config)
    turned = np.where(later, ~likes, likes)  # what comes at the moment or later is another thing
    other = CandidateFeatures(prepared(own_log(turned, log), tmp_path / "b"), config)
    users = np.arange(1, 20)
    asked = (users, np.full(len(users), moment), np.full(len(users), 3), np.arange(1, 58))
    assert np.array_equal(whole.compute(*asked), other.compute(*asked))
    after = (users, np.full(len(users), moment + 5 * 24 * HOUR), *asked[2:])
    assert not np.array_equal(whole.compute(*after), other.compute(*after))


def test_a_candidate_has_the_same_bits_alone(tmp_path: Path) -> None:
    log = impressions(0)
    likes = np.random.default_rng(1).random(len(log)) < 0.3
    features = CandidateFeatures(
        prepared(own_log(likes, log), tmp_path / "a"), CandidateFeatureConfig(windows_hours=[6])
    )
    moment = START + 12 * 24 * HOUR
    items = np.array([5, 3, 5, 9, 0])
    together = features.compute(
        np.array([2, 7]), np.array([moment, moment + HOUR]), np.array([3, 2]), items
    )
    for row, (user, shift) in enumerate([(2, 0), (2, 0), (2, 0), (7, 1), (7, 1)]):
        alone = features.compute(
            np.array([user]), np.array([moment + shift * HOUR]), np.array([1]), items[row : row + 1]
        )
        assert np.array_equal(alone[0], together[row])
    nothing = features.compute(np.array([2]), np.array([moment]), np.array([0]), items[:0])
    assert nothing.shape == (0, len(features.names))


def test_what_is_not_asked_for_is_left_out(tmp_path: Path) -> None:
    log = impressions(0)
    dataset = prepared(own_log(np.arange(len(log)) % 3 == 0, log), tmp_path / "a")
    asked = (np.array([2, 7]), np.full(2, START + 12 * 24 * HOUR), np.array([3, 1]), np.arange(4))
    every = CandidateFeatures(dataset, CandidateFeatureConfig())
    whole = every.compute(*asked)
    kept = {
        "item age": ((), ()),
        "author: ": (("author",), ()),
        "user and item: ": ((), ("item",)),
    }
    for begins, (counters, crosses) in kept.items():
        config = CandidateFeatureConfig(counters=list(counters), cross_features=list(crosses))
        some = CandidateFeatures(dataset, config)
        columns = [every.names.index(name) for name in some.names]
        assert np.array_equal(some.compute(*asked), whole[:, columns])
        assert any(name.startswith(begins) for name in some.names)
        assert any(name.startswith("user: ") for name in some.names) == bool(crosses)
        assert not any(name.startswith("user and author") for name in some.names)


def test_what_the_log_does_not_have_is_a_sentence(tmp_path: Path) -> None:
    log = impressions(0)
    dataset = prepared(own_log(np.arange(len(log)) % 3 == 0, log), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"bookmark is no action type of .*; it has liked"):
        CandidateFeatures(dataset, CandidateFeatureConfig(actions=["bookmark"]))
    with pytest.raises(ConfigError, match=r"windows_hours=\[0, 24\]"):
        CandidateFeatureConfig(windows_hours=[0, 24])
