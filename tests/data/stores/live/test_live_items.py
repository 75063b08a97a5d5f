"""Items of after the preparation: behind the data set's own ones, by the same encoding."""

from __future__ import annotations

import pickle

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.content.clusters import candidate_features
from recsys.data.contract.schema import ACTION_TYPES, TimelineKind
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.features.seen import SeenHistory
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.live import GrownDataset, LiveDataset
from tests.data.prepare.table_logs import HOUR, log_frame, prepared

TABLE = pl.DataFrame(
    {
        "sku": [0, 1, 2, 3],
        "brand": ["A", "B", None, "B"],
        "price": [10.0, 30.0, None, None],
        "name": ["Zero", "One", "", None],
        "tags": [["x", "y"], ["x", "x"], [], None],
    }
)
#: The first is one of the data set, and stays what it is.
LATER = pl.DataFrame(
    {
        "item_id": [0, 502, 501],
        "first_seen": [9_000_000_000_000 + HOUR * hours for hours in (0, 2, 1)],
        "author_id": ["B", "B", "nobody"],
        "brand": ["B", "B", "new"],
        "price": [99.0, 30.0, None],
        "tags": [[], ["y"], None],
        "title": ["no", "Later", None],
    }
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("log")
    log_frame().write_parquet(folder / "log.parquet")
    TABLE.write_parquet(folder / "items.parquet")
    columns = {"id": "sku", "author": "brand", "title": "name", "lists": ["tags"]}
    features = {"categorical": ["brand"], "dense": ["price"]}
    return prepared(folder, items={"path": "items.parquet", **columns, **features})


def test_later_items_come_behind_in_order_of_time_and_are_encoded_alike(
    dataset: PreparedDataset,
) -> None:
    live = LiveDataset.open(dataset.path, items=LATER)
    size = dataset.manifest.vocabulary_sizes["item"]
    assert live.manifest.vocabulary_sizes["item"] == size + 2
    items = live.vocabulary("item")
    assert items.indices_of([501, 502]).tolist() == [size, size + 1]
    assert items.first_seen(size + 2)[size:].tolist() == LATER["first_seen"][2:0:-1].to_list()
    own, found = dataset.item_features, live.item_features
    np.testing.assert_array_equal(found.categorical[:size], own.categorical)
    np.testing.assert_array_equal(found.dense[:size], own.dense)
    # ids: item, author (unknown, B), topic (none); then brand: A 1, B 2, one of later unknown
    assert found.categorical[size:].tolist() == [[size, 0, 0, 0], [size + 1, 2, 0, 2]]
    third = np.sqrt(2) / 3
    assert found.dense[size].tolist() == [0, 0, 0]
    np.testing.assert_allclose(
        found.dense[size + 1], [1, (0 - 2 / 3) / third, (1 - 1 / 3) / third], rtol=1e-5
    )
    stated = live.item_table(["title", "price", "author_id"])
    assert stated.rows()[-2:] == [(size, None, None, None), (size + 1, "Later", 30.0, "B")]
    assert stated.rows()[0] == dataset.item_table(["title", "price", "author_id"]).rows()[0]


def test_a_model_knows_no_more_ids_than_before(dataset: PreparedDataset) -> None:
    live = LiveDataset.open(dataset.path, items=LATER)
    ours, theirs = (FitVocabulary.of(one.manifest).sizes for one in (live, dataset))
    assert ours == theirs
    as_known = live.as_known(dataset.manifest)
    assert isinstance(as_known, LiveDataset) and as_known.live is live.live
    assert as_known.manifest.vocabulary_sizes == live.manifest.vocabulary_sizes
    assert FitVocabulary.of(as_known.manifest).sizes == theirs


def test_what_users_do_with_them_is_known(dataset: PreparedDataset) -> None:
    live = LiveDataset.open(dataset.path, items=LATER)
    size = dataset.manifest.vocabulary_sizes["item"]
    hour = (dataset.manifest.counts["last_timestamp"] // HOUR + 2) * HOUR
    shown = ACTION_TYPES.index("impression")
    events = {"user": [1, 1], "item": [size + 1, 1], "timestamp": [hour, hour + 5]}
    live.live.append({**events, "action_type": [shown, shown]})
    users, moments = np.array([1, 1, 2]), np.full(3, hour + 2 * HOUR)
    items = np.array([size + 1, size, size + 1])
    assert SeenHistory(live).seen(users, moments, items).tolist() == [True, False, False]
    history = live.timelines.history(1, hour + 1, TimelineKind.IMPLICIT, 1)
    assert history["item"].tolist() == [size + 1] and history["author"].tolist() == [2]
    features = candidate_features(live, CandidateFeatureConfig(windows_hours=[24]))
    column = features.names.index("item: impressions, 24 h")
    found = features.compute(users[:1], moments[:1], np.array([3]), np.array([size, size + 1, 1]))
    assert found[0, column] == 0 and found[1, column] == pytest.approx(np.log(2))


def test_it_goes_to_other_processes(dataset: PreparedDataset) -> None:
    grown = GrownDataset(dataset.path, dataset.manifest, items=LATER)
    again = pickle.loads(pickle.dumps(grown))
    np.testing.assert_array_equal(again.item_features.dense, grown.item_features.dense)
    assert again.manifest == grown.manifest


def test_items_without_a_moment_are_refused(dataset: PreparedDataset) -> None:
    with pytest.raises(DataError, match="lack the column first_seen"):
        GrownDataset(dataset.path, dataset.manifest, items=LATER.drop("first_seen"))
    nothing = GrownDataset(dataset.path, dataset.manifest, items=LATER.clear())
    assert nothing.manifest == dataset.manifest
