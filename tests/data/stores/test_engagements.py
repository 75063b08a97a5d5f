"""The engagement store: what counts, in which order, where histories end, when it is built anew."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.schema import ACTION_TYPES
from recsys.data.stores.check import check_dataset
from recsys.data.stores.engagements.build import SEQUENCES
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore
from recsys.data.stores.timelines import TimelineWriter

ACTIONS = ("impression", "click", "liked", "hide", "skip")
EVENTS = st.lists(
    st.tuples(st.integers(1, 7), st.integers(0, 11), st.integers(0, 12), st.sampled_from(ACTIONS)),
    min_size=1,
    max_size=60,
)


def expected(events, actions, repeats, known):
    """Per user the (item, action, time) of the engagements, written down from the definition."""
    sequences = defaultdict(list)
    for user, item, time, action in sorted(events, key=lambda event: event[2]):
        if action in actions and item in known:
            seen = {item for item, _, _ in sequences[user]}
            if repeats or item not in seen:
                sequences[user].append((item, action, time))
    return sequences


def content(store: EngagementStore):
    """Per user the (item, action, time) of the store."""
    rows = [
        (int(item), ACTION_TYPES[action], int(time))
        for item, action, time in zip(store.item, store.action_type, store.timestamp, strict=True)
    ]
    return {
        user: rows[first:last]
        for user, (first, last) in enumerate(
            zip(store.offsets[:-1].tolist(), store.offsets[1:].tolist(), strict=True)
        )
        if last > first
    }


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.booleans(), st.booleans(), st.sets(st.integers(0, 11), min_size=1))
def test_what_is_in_it(make_dataset, events, repeats, all_positive, known):
    wanted = {"click", "liked"} if all_positive else {"liked", "hide"}
    config = SequenceConfig([] if all_positive else sorted(wanted), repeats=repeats)
    known_items = np.isin(np.arange(12), list(known))
    sequences = expected(events, wanted, repeats, known - {0})
    dataset = make_dataset(events)
    if not sequences:
        with pytest.raises(DataError, match="engagement"):
            EngagementStore.open(dataset, config, known_items)
        return
    store = EngagementStore.open(dataset, config, known_items)
    assert content(store) == sequences
    counted = [event for event in events if event[3] in wanted]
    assert store.skipped == sum(event[1] not in known - {0} for event in counted)
    assert (store.surface == store.item % 3).all()
    assert store.user.tolist() == np.repeat(range(8), np.diff(store.offsets)).tolist()


@settings(max_examples=30, deadline=None)
@given(EVENTS, st.integers(0, 4))
def test_history_is_strictly_before_and_complete(make_dataset, events, gap):
    clicks = [(user, max(item, 1), time) for user, item, time, _ in events]
    store = EngagementStore.open(make_dataset(clicks), SequenceConfig(repeats=True))
    positions = np.arange(len(store))
    end = store.history_end(store.user, positions, gap)
    for user, position, stop in zip(store.user, positions, end, strict=True):
        first, last = store.offsets[user], store.offsets[user + 1]
        mine = store.timestamp[first:last]
        assert stop - first == (mine < store.timestamp[position] - gap).sum()
        assert stop <= position
    moments = np.full(8, 6)
    ends = store.ends_before(np.arange(8), moments)
    for user in range(8):
        mine = store.timestamp[store.offsets[user] : store.offsets[user + 1]]
        assert ends[user] - store.offsets[user] == (mine < 6).sum()


@settings(max_examples=20, deadline=None)
@given(EVENTS, st.integers(0, 12), st.integers(0, 12))
def test_events_of_a_period_come_in_order_of_time(make_dataset, events, first, last):
    clicks = [(user, max(item, 1), time) for user, item, time, _ in events]
    store = EngagementStore.open(make_dataset(clicks), SequenceConfig())
    positions = store.events_between(first, last)
    times = store.timestamp
    assert sorted(positions) == [p for p in range(len(store)) if first <= times[p] < last]
    order = [(int(times[p]), int(p)) for p in positions]
    assert order == sorted(order)


def test_ties_keep_the_order_of_the_log_and_of_appends(make_dataset, append):
    dataset = make_dataset([(1, 5, 7), (1, 3, 7), (1, 4, 2)])
    assert EngagementStore.open(dataset, SequenceConfig()).item.tolist() == [4, 5, 3]
    dataset = append(dataset, [(1, 1, 7), (1, 2, 2)])
    assert EngagementStore.open(dataset, SequenceConfig()).item.tolist() == [4, 2, 5, 3, 1]


def test_it_is_built_once_and_anew_when_the_data_set_grows(make_dataset, append):
    dataset = make_dataset([(1, 5, 7)])
    config = SequenceConfig()
    first = EngagementStore.open(dataset, config)
    stamp = (first.path / "item.npy").stat().st_mtime_ns
    again = EngagementStore.open(dataset, SequenceConfig(has_times=False))
    assert again.path == first.path
    assert (again.path / "item.npy").stat().st_mtime_ns == stamp
    other = EngagementStore.open(dataset, SequenceConfig(repeats=True))
    assert other.path != first.path and first.path.exists()
    grown = EngagementStore.open(append(dataset, [(2, 6, 8)]), config)
    assert grown.item.tolist() == [5, 6]
    assert first.item.tolist() == [5]  # a reader keeps what it has opened
    assert [path.name for path in (dataset.path / SEQUENCES.folder).glob("[!.]*")] == [
        grown.path.name
    ]


def test_deleted_users_leave_it(make_dataset):
    dataset = make_dataset([(1, 5, 7), (2, 6, 8)])
    EngagementStore.open(dataset, SequenceConfig())
    with TimelineWriter(dataset.path / "timelines") as writer:
        writer.delete_users([1])
    SEQUENCES.forget(dataset.path)
    assert not (dataset.path / SEQUENCES.folder).exists()
    reopened = type(dataset).open(dataset.path)
    assert EngagementStore.open(reopened, SequenceConfig()).item.tolist() == [6]


def _open(dataset, queue):
    store = EngagementStore.open(dataset, SequenceConfig())
    queue.put((store.path.name, store.item.tolist()))


def test_processes_that_build_it_at_once_agree(make_dataset):
    dataset = make_dataset(
        [(user, item, user * item) for user in range(1, 8) for item in range(1, 12)]
    )
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    builders = [context.Process(target=_open, args=(dataset, queue)) for _ in range(4)]
    for builder in builders:
        builder.start()
    results = [queue.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join()
    assert all(result == results[0] for result in results)
    assert len(results[0][1]) == 77


def test_what_a_crash_left_behind_is_not_taken_for_the_store(make_dataset):
    dataset = make_dataset([(1, 5, 7)])
    path = EngagementStore.open(dataset, SequenceConfig()).path
    partial = path.with_name(f".{path.name}.partial")
    path.rename(partial)
    (partial / "engagements.json").unlink()
    (partial / "item.npy").write_bytes(b"half")
    assert EngagementStore.open(dataset, SequenceConfig()).item.tolist() == [5]
    assert not partial.exists()


def test_it_is_opened_again_in_another_process(make_dataset):
    store = EngagementStore.open(make_dataset([(1, 5, 7), (1, 6, 8)]), SequenceConfig())
    copy = pickle.loads(pickle.dumps(store))
    assert copy.item.tolist() == [5, 6] and copy.path == store.path


def test_damage_is_a_sentence(make_dataset):
    dataset = make_dataset([(1, 5, 7), (1, 6, 8)])
    path = EngagementStore.open(dataset, SequenceConfig()).path
    np.save(path / "item.npy", np.zeros(1, np.int32))
    with pytest.raises(DataError, match=r"item\.npy has 132 bytes, 136 were written.*built anew"):
        EngagementStore.open(dataset, SequenceConfig())
    (path / "item.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"item\.npy has 0 bytes, 136 were written"):
        EngagementStore.open(dataset, SequenceConfig())
    (path / "engagements.json").write_text("{}")
    with pytest.raises(DataError, match=r"engagements\.json is damaged"):
        EngagementStore.open(dataset, SequenceConfig())


def test_without_engagements_it_says_why(make_dataset):
    dataset = make_dataset([(1, 5, 7, "hide"), (1, 6, 8, "impression")])
    with pytest.raises(DataError, match="no engagement: no explicit event with any positive"):
        EngagementStore.open(dataset, SequenceConfig())
    with pytest.raises(DataError, match=r"1 engagements .hide., none of them with a known item"):
        EngagementStore.open(dataset, SequenceConfig(["hide"]), np.zeros(12, bool))


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ("impression", r"explicit actions.*options\.actions\.<its name>=click"),
        ("licked", "licked, which is no action of the data set; choose from click, liked"),
    ],
)
def test_unknown_actions_are_refused(make_dataset, action, sentence):
    with pytest.raises(ConfigError, match=sentence):
        EngagementStore.open(make_dataset([(1, 5, 7)]), SequenceConfig([action]))


def test_what_is_left_to_the_data_set_is_settled_by_its_manifest(make_dataset):
    manifest = replace(
        make_dataset([(1, 5, 7)]).manifest,
        action_types=(*ACTION_TYPES, "bookmark", "abuse"),
        negative_actions=("abuse", "hide", "skip"),
        times="order",
    )
    settled = SequenceConfig().on(manifest)
    assert settled.has_times is False
    assert settled.actions == [
        name for name in ACTION_TYPES if name not in ("impression", "hide", "skip")
    ] + ["bookmark"]
    assert SequenceConfig(["abuse"], has_times=True).on(manifest) == SequenceConfig(
        ["abuse"], has_times=True
    )
    assert SequenceConfig(["abuse", "click"]).action_codes(manifest.actions) == [
        1,
        len(ACTION_TYPES) + 1,
    ]


def test_what_another_release_wrote_is_built_anew(make_dataset):
    dataset = make_dataset([(1, 5, 0)])
    old = EngagementStore.open(dataset, SequenceConfig()).path
    old_release = replace(SEQUENCES, version=SEQUENCES.version - 1)
    old_release.describe(old, {})
    check_dataset(dataset, anew=True)
    with pytest.raises(DataError, match=r"was written by another release; remove it"):
        EngagementStore(old)
    EngagementStore.open(dataset, SequenceConfig(repeats=True))
    assert not old.exists()
