"""Batches of sequences by hand, and the queries of every split."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError, DataError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.batches.sequences.queries import FitQueries
from recsys.data.batches.sequences.reader import SequenceReader
from recsys.data.contract.schema import ACTION_TYPES, MILLISECONDS_PER_HOUR
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

# user 1: five fit events (two at once), one to choose on, two at once to report;
# user 2: one fit event; user 3: a report event alone; user 7: first seen after the fit period
EVENTS = [
    (1, 1, 10),
    (1, 2, 20, "liked"),
    (1, 3, 30),
    (1, 4, 30),
    (1, 5, 40),
    (1, 6, 150),
    (1, 7, 250),
    (1, 8, 250),
    (2, 9, 50),
    (3, 10, 220),
    (7, 11, 120),
    (7, 1, 130),
]


@pytest.fixture(scope="module")
def module_of(make_dataset):
    dataset = make_dataset(EVENTS)

    def make(**options) -> SequenceDataModule:
        config = SequenceLoaderConfig(**({"batch_size": 10} | options))
        return SequenceDataModule(config, dataset, EngagementStore.open(dataset, SequenceConfig()))

    return make


def only(loader):
    [batch] = loader
    return batch


def test_last_cut(module_of):
    batch = only(module_of(cut="last", max_length=3).train_dataloader())
    assert batch.user.tolist() == batch.query_id.tolist() == [1]
    assert batch.lengths.tolist() == [3]
    assert batch.item.tolist() == [2, 3, 4]
    assert [ACTION_TYPES[code] for code in batch.action_type] == ["liked", "click", "click"]
    assert batch.surface.tolist() == [2, 0, 1]
    assert batch.timestamp.tolist() == [20, 30, 30]
    assert batch.request_time.tolist() == [40]
    assert batch.label_lengths.tolist() == [1] and batch.label_item.tolist() == [5]
    assert batch.user_categorical.tolist() == [[1, 1]]
    assert batch.user_dense.tolist() == pytest.approx(np.array([[0.1]]))


def test_every_evaluated_engagement_sees_what_was_strictly_before(module_of):
    data = module_of(labels=4)
    batch = only(data.test_dataloader())
    assert batch.query_id.tolist() == [0, 1, 2]
    assert batch.user.tolist() == [3, 1, 1]
    assert batch.label_item.tolist() == [10, 7, 8]
    assert batch.label_lengths.tolist() == [1, 1, 1]
    assert batch.lengths.tolist() == [0, 6, 6]  # the report events at one moment see neither
    assert batch.item.tolist() == [1, 2, 3, 4, 5, 6] * 2
    choose = only(data.val_dataloader())
    assert choose.user.tolist() == [7, 7, 1]
    assert choose.lengths.tolist() == [0, 1, 5]
    assert choose.request_time.tolist() == [120, 130, 150]
    assert choose.user_categorical.tolist() == [[0, 1], [0, 1], [1, 1]]  # user 7 is unknown


def test_random_cuts_are_uniform_and_labels_never_in_the_history(module_of):
    data = module_of(labels=2, min_history=1)
    loader = data.train_dataloader()
    counts = dict.fromkeys([2, 3, 4, 5], 0)
    for epoch in range(400):
        loader.sampler.set_epoch(epoch)
        batch = only(loader)
        label = batch.label_item[0].item()
        counts[label] += 1
        labels = [item for item in (label, label + 1) if item <= 5]  # never beyond the fit period
        assert batch.label_item.tolist() == labels
        history = [1, 2] if label == 4 else list(range(1, label))  # 3 and 4 are at one moment
        assert batch.item.tolist() == history
    # 400 draws of 4 equal chances: mean 100, standard deviation 8.7
    assert all(65 < count < 135 for count in counts.values())


def test_window_cuts_are_the_last_one_or_any_with_a_full_window(module_of):
    loader = module_of(cut="window", max_length=2).train_dataloader()
    counts = dict.fromkeys([3, 4, 5], 0)
    for epoch in range(400):
        loader.sampler.set_epoch(epoch)
        counts[only(loader).label_item.item()] += 1
    # 3 and 4 with 0.7 / 3 each: mean 93, standard deviation 8.5; 5 with what is left
    assert 60 < counts[3] < 130 and 60 < counts[4] < 130
    short = module_of(cut="window", max_length=5).train_dataloader()
    assert only(short).label_item.tolist() == [5]


def test_cuts_leave_so_many_events_strictly_before_them(make_dataset):
    """User 1 begins with four events at one moment, user 2 has no others, user 3 too few."""
    events = [(1, item, 10) for item in (1, 2, 3, 4)] + [(1, 5, 20), (1, 6, 30)]
    events += [(2, 1, 10), (2, 2, 10), (2, 3, 10), (3, 1, 10), (3, 2, 20)]
    store = EngagementStore.open(make_dataset(events), SequenceConfig())

    def cuts(min_history: int) -> dict[int, set[int]]:
        config = SequenceLoaderConfig(min_history=min_history, min_events=3)
        queries = FitQueries(store, (0, 100), config)
        found: dict[int, set[int]] = {}
        for epoch in range(100):
            for user, label in zip(queries.user, queries.first_label(epoch), strict=True):
                found.setdefault(int(user), set()).add(int(store.item[label]))
        return found

    assert cuts(0) == {1: {1, 2, 3, 4, 5, 6}, 2: {1, 2, 3}}
    assert cuts(1) == {1: {5, 6}}
    assert cuts(2) == {1: {5, 6}}
    last = SequenceLoaderConfig(min_history=2, min_events=3, cut="last")
    assert FitQueries(store, (0, 100), last).user.tolist() == [1]


@pytest.mark.parametrize("cut", ["random", "window", "last"])
def test_labels_of_the_fit_period_alone(make_dataset, cut):
    """User 1 has events before and in the fit period, user 2 none in it."""
    events = [(1, item, 10 * item) for item in range(1, 7)] + [(2, item, item) for item in (1, 2)]
    store = EngagementStore.open(make_dataset(events), SequenceConfig())
    config = SequenceLoaderConfig(only_fit_labels=True, cut=cut, max_length=2)
    queries = FitQueries(store, (40, 60), config)
    assert queries.user.tolist() == [1]
    found = {int(store.item[queries.first_label(epoch)[0]]) for epoch in range(50)}
    assert found == ({5} if cut == "last" else {4, 5})


def test_cuts_follow_from_seed_epoch_and_user(module_of, append, make_dataset):
    def cuts(dataset, seed, epoch):
        store = EngagementStore.open(dataset, SequenceConfig())
        queries = FitQueries(store, (0, 100), SequenceLoaderConfig(seed=seed))
        first = queries.first_label(epoch) - store.offsets[queries.user]
        return dict(zip(queries.user.tolist(), first.tolist(), strict=True))

    events = [(user, item, item) for user in (2, 4, 5) for item in range(1, 12)]
    small = make_dataset(events)
    assert cuts(small, 0, 3) == cuts(small, 0, 3)
    many = [cuts(small, seed, epoch)[4] for seed in range(3) for epoch in range(5)]
    assert len(set(many)) > 3
    before = cuts(small, 1, 2)
    with_more = cuts(append(small, [(1, 1, 5), (1, 2, 6), (3, 1, 1), (3, 3, 3)]), 1, 2)
    assert {user: with_more[user] for user in before} == before


def test_stale_histories_end_earlier(make_dataset):
    hour = MILLISECONDS_PER_HOUR
    dataset = make_dataset([(1, 1, 0), (1, 2, hour), (1, 3, 2 * hour), (1, 4, 3 * hour)])
    store = EngagementStore.open(dataset, SequenceConfig())
    data = SequenceDataModule(SequenceLoaderConfig(gap_hours=1.5), dataset, store)
    data.dataset.manifest.split_bounds["report"] = (3 * hour, 4 * hour)
    batch = only(data.test_dataloader())
    assert batch.item.tolist() == [1, 2] and batch.label_item.tolist() == [4]
    assert batch.request_time.tolist() == [3 * hour]


def test_recommendations_see_everything_before_a_moment(make_dataset):
    dataset = make_dataset(EVENTS)
    reader = SequenceReader(dataset, EngagementStore.open(dataset, SequenceConfig()), 3)
    batch = reader.before([0, 5, 2, 1], 150)
    assert batch.lengths.tolist() == [0, 0, 1, 3]
    assert batch.item.tolist() == [9, 3, 4, 5]
    assert batch.label_item.tolist() == [] and batch.label_lengths.tolist() == [0, 0, 0, 0]
    assert reader.before([1], 151).item.tolist() == [4, 5, 6]


def test_batches_move_and_cross_processes(module_of):
    batch = only(module_of().test_dataloader())
    batch.find_pools(["item", "label_item"])
    moved = batch.to("meta")
    assert moved.lengths.device.type == moved.pools["item"].device.type == "meta"
    assert moved.host_lengths.tolist() == batch.lengths.tolist()
    assert moved.item.device.type == "meta" and moved.user_dense.shape == (3, 1)
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.pools.keys() == {"item", "label_item"}
    for column, pool in copy.pools.items():
        assert pool.tolist() == sorted(set(getattr(batch, column).tolist()))
    for name, value in vars(batch).items():
        if name != "pools":
            assert torch.equal(getattr(copy, name), value)
            assert getattr(copy, name).dtype == value.dtype


def test_splits_without_queries_are_a_sentence(make_dataset):
    dataset = make_dataset([(1, 1, 10), (2, 1, 250)])
    data = SequenceDataModule(
        SequenceLoaderConfig(), dataset, EngagementStore.open(dataset, SequenceConfig())
    )
    with pytest.raises(DataError, match="no user has 2 engagements before the end of the fit"):
        data.train_dataloader()
    with pytest.raises(DataError, match="no engagement lies in the choose period of tiny"):
        data.val_dataloader()


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"max_length": 0},
        {"labels": 0},
        {"cut": "middle"},
        {"min_history": -1},
        {"gap_hours": float("nan")},
        {"min_events": 3, "min_history": 3},
    ],
)
def test_values_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SequenceLoaderConfig(**wrong)


def test_given_items_make_the_batch_that_stored_engagements_make(module_of) -> None:
    """The queries of the report period from their users, moments and items alone."""
    data = module_of()
    stored = only(data.test_dataloader())
    batch = data.reader.given(
        stored.user.numpy(),
        stored.request_time.numpy(),
        stored.label_lengths.numpy(),
        stored.label_item.numpy(),
    )
    for field in dataclasses.fields(batch):
        if field.name not in ("query_id", "pools"):
            assert torch.equal(getattr(batch, field.name), getattr(stored, field.name)), field.name
    assert batch.label_item.tolist() == [10, 7, 8] and batch.lengths.tolist() == [0, 6, 6]
