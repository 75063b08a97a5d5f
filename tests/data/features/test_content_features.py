"""What a user did with items whose content is like a candidate's: by hand, and as it is defined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.features.candidate_features import CandidateFeatures
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.dataset import PreparedDataset
from tests.evaluation.baselines.planted import HOUR, START, own_log, prepared

ITEMS = 12
CONTENT_ALONE = {"counters": [], "cross_features": ["content"]}


def test_numbers_by_hand(tmp_path: Path) -> None:
    # user, item, hour, liked; of the items 7 and 8 are alike, and of 10 nothing is known
    shown = [(1, 7, 0, 1), (1, 9, 1, 1), (1, 10, 2, 1), (1, 8, 30, 0), (1, 8, 40, 0), (2, 7, 50, 0)]
    log = pl.DataFrame(
        {
            "user_id": [user for user, *_ in shown] + [5, 5],
            "item_id": [item for _, item, *_ in shown] + [9, 9],
            "timestamp": [START + hour * HOUR for *_, hour, _ in shown]
            + [START + 70 * HOUR, START + 100 * HOUR],
        }
    )
    likes = np.array([liked == 1 for *_, liked in shown] + [False, False])
    dataset = prepared(own_log(likes, log), tmp_path / "prepared")
    seven, eight, nine, ten = dataset.vocabulary("item").indices_of([7, 8, 9, 10])
    clusters = np.zeros(5, np.int32)
    clusters[[seven, eight, nine]] = 1, 1, 2
    config = CandidateFeatureConfig(windows_hours=[24], **CONTENT_ALONE)
    features = CandidateFeatures(dataset, config, clusters)
    user = dataset.vocabulary("user").indices_of([1])
    moment = np.array([START + 42 * HOUR])
    of_items = features.compute(user, moment, np.array([3]), np.array([eight, nine, ten]))
    like, other, unknown = (dict(zip(features.names, row, strict=True)) for row in of_items)
    assert like["user and content: impressions, all"] == pytest.approx(np.log1p(3))
    assert like["user and content: impressions, 24 h"] == pytest.approx(np.log1p(2))
    assert like["user and content: liked, all"] == pytest.approx(np.log1p(1))
    assert like["user and content: liked, 24 h"] == 0
    assert like["user and content: last impression"] == pytest.approx(1 / (1 + 2 / 24))
    # a like comes a second after its impression
    assert like["user and content: last liked"] == pytest.approx(1 / (1 + (42 - 1 / 3600) / 24))
    # of all: three likes in five impressions, which are the user's own
    of_all = (3 + 1) / (5 + 10)
    own = (3 + 10 * of_all) / (5 + 10)
    lift = np.log((1 + 10 * own) / (3 + 10) / own)
    assert like["user and content: liked lift, all"] == pytest.approx(lift, abs=1e-6)
    assert other["user and content: impressions, all"] == pytest.approx(np.log1p(1))
    assert not any(value for name, value in unknown.items() if "content" in name)
    without = CandidateFeatures(dataset, config)
    assert without.names == ("item age", "item is new")


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """Impressions of six users over eight days; every third is liked a second after."""
    draw = np.random.default_rng(0)
    shown = pl.DataFrame(
        {
            "user_id": draw.integers(0, 6, 300),
            "item_id": draw.integers(0, ITEMS, 300),
            "timestamp": START + np.sort(draw.choice(8 * 24 * 3600, 300, replace=False)) * 1000,
        }
    )
    return own_log(np.arange(300) % 3 == 0, shown)


@pytest.fixture(scope="module")
def dataset(events: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepared(events, tmp_path_factory.mktemp("log") / "prepared")


REQUEST = st.tuples(
    st.integers(0, 5), st.integers(0, 9 * 24), st.lists(st.integers(0, ITEMS - 1), max_size=4)
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS).filter(any),
    st.lists(REQUEST, min_size=1, max_size=3),
)
def test_counts_and_times_are_as_defined(
    dataset: PreparedDataset,
    events: pl.DataFrame,
    of_raw: list[int],
    asked: list[tuple[int, int, list[int]]],
) -> None:
    clusters = np.zeros(ITEMS + 1, np.int32)
    clusters[dataset.vocabulary("item").indices_of(list(range(ITEMS)))] = of_raw
    config = CandidateFeatureConfig(windows_hours=[24], **CONTENT_ALONE)
    features = CandidateFeatures(dataset, config, clusters)
    raw = [item for *_, items in asked for item in items]
    found = features.compute(
        dataset.vocabulary("user").indices_of([user for user, *_ in asked]),
        np.array([START + hour * HOUR for _, hour, _ in asked]),
        np.array([len(items) for *_, items in asked]),
        dataset.vocabulary("item").indices_of(raw) if raw else np.empty(0, np.int32),
    )
    rows = iter(found)
    for user, hour, items in asked:
        before = START + hour * HOUR
        own = events.filter((pl.col("user_id") == user) & (pl.col("timestamp") < before)).rows()
        for item in items:
            row = dict(zip(features.names, next(rows), strict=True))
            for action, name in (("impression", "impressions"), ("liked", "liked")):
                hours = [
                    (before - time) / HOUR
                    for _, of_event, time, kind in own
                    if kind == action and of_raw[of_event] == of_raw[item] != 0
                ]
                lately = sum(age <= 24 for age in hours)
                last = 1 / (1 + min(hours) / 24) if hours else 0
                of_pair = f"user and content: {name}"
                assert row[f"{of_pair}, all"] == pytest.approx(np.log1p(len(hours)))
                assert row[f"{of_pair}, 24 h"] == pytest.approx(np.log1p(lately))
                assert row[f"user and content: last {action}"] == pytest.approx(last, rel=1e-5)
