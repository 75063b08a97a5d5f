"""The counter store: what it counts, where the cutoff lies, when it is built anew."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.stores.check import check_dataset
from recsys.data.stores.counters.build import COUNTERS
from recsys.data.stores.counters.store import CounterStore

ACTIONS = ("impression", "liked", "hide")
#: Users, items, quarters of an hour.
EVENTS = st.lists(
    st.tuples(st.integers(1, 7), st.integers(0, 11), st.integers(0, 40), st.sampled_from(ACTIONS)),
    max_size=60,
)
MOMENTS = st.integers(0, 60)
OF_ITEM = {"item": lambda item: item, "author": lambda item: item % 4, "topic": lambda i: i % 2}


def at(events):
    """Events whose moments are whole quarters of an hour."""
    return [(user, item, quarter * HOUR // 4, action) for user, item, quarter, action in events]


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.lists(MOMENTS, min_size=1, max_size=5))
def test_counts_are_those_of_the_whole_hours_before(make_dataset, events, moments):
    events = at(events)
    store = CounterStore.open(make_dataset(events))
    windows = [None, 1, 3]
    for entity, of_item in OF_ITEM.items():
        for index in range(4 if entity == "author" else 2 if entity == "topic" else 12):
            before = np.array(moments) * HOUR // 4
            found = store.counts(entity, np.full(len(before), index), before, windows)
            for w, hours in enumerate(windows):
                for r, moment in enumerate(before):
                    end = moment // HOUR * HOUR
                    start = -1 if hours is None else end - hours * HOUR
                    expected = [
                        sum(
                            index != 0 and of_item(item) == index and name == action
                            for _, item, time, name in events
                            if start <= time < end
                        )
                        for action in store.actions
                    ]
                    assert found[w, r].tolist() == expected


def test_everything_counts_unknown_items_too(make_dataset):
    store = CounterStore.open(make_dataset(at([(1, 0, 0, "liked"), (2, 3, 1, "impression")])))
    assert store.actions == ("impression", "liked")
    assert store.counts("everything", [0], [HOUR], [None]).tolist() == [[[1, 1]]]
    assert store.counts("item", [0, 3], [HOUR, HOUR], [None]).tolist() == [[[0, 0], [1, 0]]]


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.integers(1, 40), st.lists(st.integers(0, 11), min_size=1, max_size=20))
def test_nothing_of_the_moment_or_later_is_seen(make_dataset, events, moment, planted):
    # so that both logs have the same action types
    events = [*at(events), *((1, 1, 0, action) for action in ACTIONS)]
    before = moment * HOUR // 4
    later = [(1, item, before, "liked") for item in planted]
    asked = np.arange(12), np.full(12, before), [None, 1, 24]
    counts = CounterStore.open(make_dataset(events)).counts("item", *asked)
    with_later = CounterStore.open(make_dataset([*events, *later])).counts("item", *asked)
    assert (with_later == counts).all()


def test_a_log_without_events_has_counts_of_zero(make_dataset):
    store = CounterStore.open(make_dataset([(0, 1, 0)]))
    assert store.counts("author", [1, 2], [HOUR, HOUR], [None, 1]).sum() == 0


def test_it_is_built_anew_when_events_come(make_dataset, append):
    dataset = make_dataset([(1, 5, 0)])
    store = CounterStore.open(dataset)
    assert CounterStore.open(dataset).path == store.path
    grown = CounterStore.open(append(dataset, [(2, 5, 10)]))
    assert [path.name for path in (dataset.path / COUNTERS.folder).glob("[!.]*")] == [
        grown.path.name
    ]
    [[[shown, clicked]]] = grown.counts("item", [5], [HOUR], [None]).tolist()
    assert (shown, clicked) == (0, 2)


def test_it_travels_to_other_processes_and_is_checked(make_dataset):
    dataset = make_dataset([(1, 5, 0)])
    store = pickle.loads(pickle.dumps(CounterStore.open(dataset)))
    assert store.counts("item", [5], [HOUR], [None])[0, 0].tolist() == [0, 1]
    damaged = store.path / "item_counts.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"item_counts.npy is not what was written"):
        check_dataset(dataset, anew=True)
    damaged.unlink()
    with pytest.raises(DataError, match=r"item_counts.npy is missing; remove"):
        CounterStore.open(dataset)
