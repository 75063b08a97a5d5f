"""What a ranker reads of live events is what it reads once they are appended to the data set."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.contract.schema import Column
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.features.seen import SeenHistory
from recsys.data.prepare.append import AppendConfig, append
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveDataset
from recsys.serving.funnel.candidates import Offers, Requests, Share, mix
from recsys.serving.funnel.stages import Seen
from tests.evaluation.baselines.planted import HOUR, START, impressions, own_log, prepared

FIRST_LIVE = START + 20 * 24 * HOUR


@pytest.fixture(scope="module")
def logged() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A log of whole days, and what came afterwards; every user and item is in both."""
    shown = impressions(0)
    likes = np.random.default_rng(1).random(len(shown)) < 0.3
    log = own_log(likes, shown)
    return (
        log.filter(pl.col("timestamp") < FIRST_LIVE),
        log.filter(pl.col("timestamp") >= FIRST_LIVE),
    )


def report(view: LiveDataset, log: pl.DataFrame) -> None:
    """Append events as a service does that knows indices and codes."""
    names = view.manifest.action_types
    taken = view.live.append(
        {
            "user": view.vocabulary("user").indices(log[Column.USER]).to_numpy(),
            "item": view.vocabulary("item").indices(log[Column.ITEM]).to_numpy(),
            "timestamp": log[Column.TIMESTAMP].to_numpy(),
            "action_type": [names.index(name) for name in log[Column.ACTION_TYPE]],
        }
    )
    assert (taken.taken, taken.set_aside) == (log.height, {})


def reader_of(dataset: PreparedDataset) -> RankingReader:
    features = CandidateFeatureConfig(windows_hours=[1, 24])
    return RankingReader(dataset, gap_hours=0, recent_events=20, features=features)


def asked(count: int) -> tuple[np.ndarray, ...]:
    draw = np.random.default_rng(2)
    moments = FIRST_LIVE + draw.integers(0, 9 * 24 * HOUR, count)
    return draw.integers(0, 151, count), moments, np.full(count, 5), draw.integers(0, 61, 5 * count)


def test_a_ranker_reads_what_it_reads_after_the_append(tmp_path: Path, logged) -> None:
    stored, later = logged
    dataset = prepared(stored, tmp_path / "data")
    trained_on, former = dataset.manifest, reader_of(dataset).given(*asked(40))
    view = LiveDataset.open(tmp_path / "data", live=tmp_path / "live")
    reader = reader_of(view)  # before anything has come
    for part in later.sample(fraction=1, shuffle=True, seed=0).iter_slices(5_000):
        report(view, part)
    found = reader.given(*asked(40))
    seen = SeenHistory(view).seen(*(np.repeat(one, 5) for one in asked(40)[:2]), asked(40)[3])
    view.live.close()
    # as it would be prepared from the same log
    append(AppendConfig(name="planted", out=str(tmp_path / "data")), frame=later)
    newer = PreparedDataset.open(tmp_path / "data")
    expected = reader_of(newer.as_known(trained_on)).given(*asked(40))
    for field in fields(expected):
        values, wanted = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(values, wanted, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(found.counted, former.counted)
    assert not torch.equal(found.recent_ids, former.recent_ids)
    history = SeenHistory(newer)
    again = history.seen(*(np.repeat(one, 5) for one in asked(40)[:2]), asked(40)[3])
    np.testing.assert_array_equal(seen, again)
    assert 0.1 < seen.mean() < 0.9


def test_the_next_request_knows_of_an_action(tmp_path: Path, logged) -> None:
    dataset = prepared(logged[0], tmp_path / "data")
    view = LiveDataset(dataset.path, dataset.manifest)
    reader, history = reader_of(view), SeenHistory(view)
    user, moment, items = np.array([7]), np.array([FIRST_LIVE + HOUR]), np.arange(1, 60)
    unseen = items[~history.seen(np.repeat(user, 59), np.repeat(moment, 59), items)]
    shown, other = unseen[:2].tolist()
    before = reader.given(user, moment, np.array([1]), np.array([shown]))
    event = {"user": user, "item": [shown], "timestamp": moment - 1}
    view.live.append({**event, "action_type": [0]})
    view.live.append({**event, "action_type": [view.manifest.action_types.index("liked")]})
    after = reader.given(user, moment, np.array([1]), np.array([shown]))
    assert not torch.equal(before.counted, after.counted)
    assert after.recent_ids[0, -1, 0] == shown
    offers = Offers(np.array([2]), np.array([shown, other]), np.zeros(2, np.float32))
    stage = Seen(history)
    kept = stage.keep(Requests(np.array([1]), user, moment), mix([offers], [Share(2)], 1))
    assert kept.tolist() == [False, True]
