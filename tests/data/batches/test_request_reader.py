"""A batch against the stores it is made of."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import polars as pl
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.data.batches.request_reader import RequestDataset, RequestReader
from recsys.data.batches.requests import RequestBatch
from recsys.data.contract.schema import (
    EXPLICIT_COLUMNS,
    IMPLICIT_COLUMNS,
    LENGTHS,
    Feature,
    FeatureKind,
    FeatureSide,
)
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.encoding import FeatureEncoding
from recsys.data.stores.fit_vocabulary import FitVocabulary

FIT_ITEMS = 50


def requests_of(
    prepared: PreparedDataset, split: str = "fit", request_grouping: bool = True, **options
) -> RequestDataset:
    reader = RequestReader(prepared, **{"gap_hours": 24.0, "max_events": 1_000, **options})
    return RequestDataset(prepared, split, reader, request_grouping=request_grouping)


def test_batch_has_the_contract_and_the_rows(prepared: PreparedDataset):
    store = prepared.requests("choose")
    positions = np.array([4, 0, 7])
    batch = requests_of(prepared, "choose")[positions]
    assert batch.request_time.tolist() == store.request_time[positions].tolist()
    rows = [r for p in positions for r in range(store.offsets[p], store.offsets[p + 1])]
    assert batch.row_id.tolist() == rows
    assert batch.rows_per_request.sum() == len(rows)
    assert batch.request_index.dtype == torch.int64
    item = store.item[rows]
    expected = np.stack(
        [
            np.where(item < FIT_ITEMS, item, 0),
            item % 7,
            item % 3,
            store.context_categorical[rows, 0],
        ],
        axis=1,
    )
    assert batch.item_categorical.tolist() == expected.tolist()
    assert batch.item_dense.tolist() == np.stack([item, store.context_dense[rows, 0]], 1).tolist()
    assert batch.labels.tolist() == store.labels[rows].tolist()
    assert batch.user_categorical.tolist() == store.user[positions, None].tolist()
    assert batch.user_dense.shape == (3, 0)
    for name in ("user_categorical", "item_categorical", "row_id", "rows_per_request"):
        assert getattr(batch, name).dtype == torch.int64
    for timeline, columns in (
        (batch.explicit, EXPLICIT_COLUMNS),
        (batch.implicit, IMPLICIT_COLUMNS),
    ):
        dtypes = {name: column.numpy().dtype for name, column in timeline.items()}
        assert dtypes == {LENGTHS: np.dtype(np.int64), **columns}


@pytest.mark.parametrize("gap_hours", [0.0, 24.0, 72.5])
@pytest.mark.parametrize("split", ["fit", "choose", "report"])
def test_every_event_is_strictly_before_the_gap(prepared, split, gap_hours):
    requests = requests_of(prepared, split, gap_hours=gap_hours)
    batch = requests[np.arange(len(requests))]
    cutoff = batch.request_time - round(gap_hours * HOUR)
    seen = 0
    for timeline in (batch.explicit, batch.implicit):
        owner = torch.repeat_interleave(torch.arange(len(cutoff)), timeline[LENGTHS])
        assert (timeline["timestamp"] < cutoff[owner]).all()
        seen += len(owner)
    assert seen == requests.num_events().sum() > 0


def test_max_events_keeps_the_newest(prepared: PreparedDataset):
    [full], [cut] = (
        [requests_of(prepared, max_events=m)[np.array([0])].implicit] for m in (1_000, 2)
    )
    assert full[LENGTHS].item() > 2
    assert cut["timestamp"].tolist() == full["timestamp"].tolist()[-2:]


def test_items_unseen_in_fit_are_unknown_in_timelines(prepared: PreparedDataset):
    requests = requests_of(prepared, "report")
    batch = requests[np.arange(len(requests))]
    store = prepared.requests("report")
    raw = prepared.timelines.histories(
        store.user, store.request_time - 24 * HOUR, "explicit", 1_000
    )
    assert (raw["item"] >= FIT_ITEMS).any()
    expected = np.where(raw["item"] < FIT_ITEMS, raw["item"], 0)
    assert batch.explicit["item"].tolist() == expected.tolist()
    assert batch.explicit["author"].tolist() == raw["author"].tolist()  # no count, so kept


def test_fit_vocabulary_treats_only_id_features():
    features = [
        Feature(name, FeatureSide.ITEM, FeatureKind.CATEGORICAL, 9)
        for name in ("item_id", "category", "author")
    ]
    indices = np.array([[4, 8, 1], [5, 8, 3]], np.int32)
    hidden = FitVocabulary({"item": 5, "author": 3}).hide_unseen_features(indices, features)
    assert hidden.tolist() == [[4, 8, 1], [0, 8, 0]]
    assert indices[1, 0] == 5


def test_ungrouped_rows_see_what_grouped_rows_see(prepared: PreparedDataset):
    grouped = requests_of(prepared)
    ungrouped = requests_of(prepared, request_grouping=False)
    store = prepared.requests("fit")
    assert (len(grouped), len(ungrouped)) == (len(store), store.num_rows)
    together, apart = grouped[np.array([3, 1])], None
    apart = ungrouped[together.row_id.numpy()]
    assert apart.rows_per_request.tolist() == [1] * len(together.row_id)
    index = together.request_index
    for name in ("row_id", "labels", "item_categorical", "item_dense"):
        assert torch.equal(getattr(apart, name), getattr(together, name))
    for name in ("request_time", "user_categorical"):
        assert torch.equal(getattr(apart, name), getattr(together, name)[index])
    assert torch.equal(apart.explicit[LENGTHS], together.explicit[LENGTHS][index])
    assert ungrouped.num_events().sum() == sum(
        grouped.num_events()[i] * (store.offsets[i + 1] - store.offsets[i])
        for i in range(len(store))
    )


def test_without_timelines_only_histories_are_empty(prepared: PreparedDataset):
    positions = np.array([2, 5])
    batch = requests_of(prepared, without_timelines=True)[positions]
    usual = requests_of(prepared)[positions]
    assert not requests_of(prepared, without_timelines=True).num_events().any()
    for field in fields(RequestBatch):
        mine, theirs = getattr(batch, field.name), getattr(usual, field.name)
        if isinstance(mine, dict):
            assert mine[LENGTHS].tolist() == [0, 0]
            assert {n: (len(c), c.dtype) for n, c in mine.items() if n != LENGTHS} == {
                n: (0, c.dtype) for n, c in theirs.items() if n != LENGTHS
            }
        else:
            assert torch.equal(mine, theirs)


def test_batch_of_one_request_may_be_written_to(prepared: PreparedDataset):
    """The store hands out read-only views; a tensor over one would crash when written to."""
    batch = requests_of(prepared)[np.array([0])]
    before = batch.explicit["timestamp"].clone()
    batch.explicit["timestamp"].zero_()
    again = requests_of(prepared)[np.array([0])]
    assert torch.equal(again.explicit["timestamp"], before)


@pytest.fixture(scope="module")
def log_dataset(tmp_path_factory) -> PreparedDataset:
    """A prepared log whose impressions have surfaces, durations and hours."""
    folder = tmp_path_factory.mktemp("given")
    generator = np.random.default_rng(3)
    events = 600
    log = pl.DataFrame(
        {
            "user_id": generator.integers(1, 9, events),
            "item_id": generator.integers(1, 30, events),
            "timestamp": 1_700_000_000_000 + np.sort(generator.integers(0, 200 * HOUR, events)),
            "surface": generator.choice(["feed", "search", "story"], events),
            "action_type": generator.choice(["impression", "impression", "click"], events),
            "dwell_time": generator.random(events).astype(np.float32),
            "video_duration": generator.integers(5, 60, events).astype(np.float32),
        }
    )
    log.write_parquet(folder / "log.parquet")
    prepare(PrepareConfig(path=str(folder / "log.parquet"), out=str(folder / "prepared")))
    return PreparedDataset.open(folder / "prepared")


def test_given_items_make_the_batch_that_stored_rows_make(log_dataset: PreparedDataset) -> None:
    """Users, moments, items and raw context of stored rows, without the rows themselves."""
    stored = requests_of(log_dataset, "report")
    rows = stored.rows(np.arange(len(stored)))
    expected = stored[np.arange(len(stored))]
    time = np.repeat(rows.request_time, rows.rows_per_request)
    encoding = FeatureEncoding.load(log_dataset.path / "features")
    columns = {
        f.name: i for i, f in enumerate(log_dataset.manifest.select("context", "categorical"))
    }
    raw = {
        name: [
            None if code == 0 else encoding.categories[name][code - 1]
            for code in rows.context_categorical[:, columns[name]]
        ]
        for name in ("surface", "media_type")
    }
    mean, deviation = encoding.dense["video_duration"]
    context = pl.DataFrame(raw).with_columns(
        hour_of_day=time // HOUR % 24,
        # seconds, as in the log; what is stored is the logarithm
        video_duration=np.expm1(rows.context_dense[:, 0].astype(np.float64) * deviation + mean),
    )
    reader = RequestReader(log_dataset, gap_hours=24.0, max_events=1_000)
    batch = reader.given(rows.user, rows.request_time, rows.rows_per_request, rows.item, context)
    assert len(batch.row_id) > 20 and batch.labels.isnan().all()
    for field in fields(RequestBatch):
        mine, theirs = getattr(batch, field.name), getattr(expected, field.name)
        if field.name == "item_dense":
            torch.testing.assert_close(mine, theirs)
        elif isinstance(mine, dict):
            assert all(
                torch.equal(mine[n].nan_to_num(-1), c.nan_to_num(-1)) for n, c in theirs.items()
            )
        elif field.name not in ("labels", "row_id"):
            assert torch.equal(mine, theirs), field.name


def test_given_context_holds_for_all_rows_or_is_refused(log_dataset: PreparedDataset) -> None:
    reader = RequestReader(log_dataset, gap_hours=24.0, max_events=10)
    one = np.array([1]), np.array([1_700_000_000_000]), np.array([3]), np.array([1, 2, 3])
    names = [feature.name for feature in log_dataset.manifest.select("context", "categorical")]
    hour = reader.given(*one, {"hour_of_day": 7}).item_categorical
    unknown = reader.given(*one).item_categorical
    at = hour.shape[1] - len(names) + names.index("hour_of_day")
    assert len(set(hour[:, at].tolist())) == 1 and (hour[:, at] > 0).all()
    assert (unknown[:, -len(names) :] == 0).all()
    assert torch.equal(hour[:, :at], unknown[:, :at])
    with pytest.raises(ConfigError, match="context has mood, which is no context feature of log"):
        reader.given(*one, {"mood": "good"})
    with pytest.raises(ConfigError, match="context has 2 rows for 3 items"):
        reader.given(*one, pl.DataFrame({"surface": ["feed", "feed"]}))


def test_an_unknown_user_has_no_history(log_dataset: PreparedDataset) -> None:
    reader = RequestReader(log_dataset, gap_hours=0.0, max_events=10)
    moment = np.full(2, 1_800_000_000_000)
    batch = reader.given(np.array([0, 1]), moment, np.array([1, 1]), np.array([0, 1]))
    assert batch.implicit[LENGTHS].tolist()[0] == 0 < batch.implicit[LENGTHS].tolist()[1]
