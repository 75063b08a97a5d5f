"""Live timelines, counters and features against stores to which the same events were appended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.contract.schema import LENGTHS, TIMELINE_COLUMNS, TimelineKind
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR as HOUR
from recsys.data.features.seen import SeenHistory
from recsys.data.stores.counters.store import CounterStore
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveDataset, LiveEvents
from tests.data.stores.live.small import (
    ACTIONS,
    AUTHORS,
    CALLS,
    END,
    EVENTS,
    ITEMS,
    LATEST,
    QUARTERS,
    TOPICS,
    USERS,
    counters_of,
    grown,
    make,
    reported,
)

#: So that both logs have the same action types.
EVERY_ACTION = [(1, 1, 0, action, None, 0) for action in ACTIONS]


def live_over(dataset: PreparedDataset, calls: list[list[tuple]]) -> LiveDataset:
    live = LiveDataset(dataset.path, dataset.manifest)
    for call in calls:
        live.live.append(reported(call))
    return live


def once(calls: list[list[tuple]]) -> list[tuple]:
    """All events, those left out that were there before."""
    events: dict[tuple, tuple] = {}
    for event in (event for call in calls for event in call):
        author = event[5] or event[1] % AUTHORS
        dwell = event[4] if event[3] == "impression" else None
        events.setdefault((*event[:4], dwell, author), event)
    return list(events.values())


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name].dtype == column.dtype
        np.testing.assert_array_equal(found[name], column)


@settings(max_examples=40, deadline=None)
@given(
    stored=EVENTS,
    calls=CALLS,
    requests=st.lists(st.tuples(st.integers(0, 5), QUARTERS), max_size=12),
    max_events=st.sampled_from([0, 1, 3, 35_000]),
    columns=st.sampled_from([None, ("item",), ("author", "dwell_time", "action_type")]),
)
def test_timelines_are_those_of_a_store_with_the_same_events(
    tmp_path_factory, stored, calls, requests, max_events, columns
):
    dataset = make(tmp_path_factory.mktemp("data"), stored)
    live = live_over(dataset, calls)
    timelines = live.timelines
    read = {kind: {} for kind in TimelineKind}
    users, before = [u for u, _ in requests], [END + q * HOUR // 4 for _, q in requests]
    for kind in TimelineKind:
        asked = users, before, kind, max_events
        read[kind] = {
            "batch": timelines.histories(*asked, columns),
            "lengths": timelines.lengths(*asked),
            "events": timelines.num_events(kind),
            "alone": [
                timelines.history(user, moment, kind, max_events)
                for user, moment in zip(users, before, strict=True)
            ],
        }
    found_users = timelines.users()
    expected = grown(dataset, once(calls)).timelines
    np.testing.assert_array_equal(found_users, expected.users())
    for kind, found in read.items():
        asked = users, before, kind, max_events
        assert_same(found["batch"], expected.histories(*asked, columns))
        assert found["lengths"].tolist() == expected.lengths(*asked).tolist()
        assert found["events"] == expected.num_events(kind)
        for user, moment, history in zip(users, before, found["alone"], strict=True):
            assert history.keys() == TIMELINE_COLUMNS[kind].keys()
            assert_same(history, expected.history(user, moment, kind, max_events))
            assert (history["timestamp"] < moment).all()


@settings(max_examples=20, deadline=None)
@given(stored=EVENTS, calls=CALLS, moments=st.lists(QUARTERS, min_size=1, max_size=5))
def test_counters_are_those_built_of_all_events(tmp_path_factory, stored, calls, moments):
    dataset = make(tmp_path_factory.mktemp("data"), [*stored, *EVERY_ACTION])
    view = LiveDataset(dataset.path, dataset.manifest)
    counters, found = counters_of(view), {}
    sizes = {"item": ITEMS, "author": AUTHORS, "topic": TOPICS, "everything": 1}
    windows = [None, 1, 3]
    asked = {
        name: (
            np.tile(np.arange(size), len(moments)),
            np.repeat(END + np.array(moments) * HOUR // 4, size),
            windows,
        )
        for name, size in sizes.items()
    }
    for call in calls:
        view.live.append(reported(call))
        # whoever asks between the calls changes nothing of what is answered later
        found = {name: counters.counts(name, *question) for name, question in asked.items()}
    expected = CounterStore.open(grown(dataset, once(calls)))
    assert counters.actions == expected.actions
    for name, counts in found.items():
        np.testing.assert_array_equal(counts, expected.counts(name, *asked[name]))


@settings(max_examples=15, deadline=None)
@given(stored=EVENTS, calls=CALLS, moment=st.integers(1, LATEST), planted=EVENTS)
def test_nothing_of_the_moment_or_later_is_seen(tmp_path_factory, stored, calls, moment, planted):
    dataset = make(tmp_path_factory.mktemp("data"), [*stored, *EVERY_ACTION])
    live = live_over(dataset, calls)
    before = END + moment * HOUR // 4
    users, items = np.arange(USERS), np.arange(ITEMS)

    def everything() -> list[np.ndarray]:
        seen = SeenHistory(live).seen(np.repeat(users, ITEMS), np.full(USERS * ITEMS, before),
                                      np.tile(items, USERS))  # fmt: skip
        read = [live.timelines.histories(users, np.full(USERS, before), k) for k in TimelineKind]
        counts = counters_of(live).counts("item", items, np.full(ITEMS, before), [None, 1])
        return [seen, counts, *(column for one in read for column in one.values())]

    former = everything()
    live.live.append(
        reported([(*event[:2], max(event[2], moment), *event[3:]) for event in planted])
    )
    for now, then in zip(everything(), former, strict=True):
        np.testing.assert_array_equal(now, then)


@settings(max_examples=30, deadline=None)
@given(
    stored=EVENTS,
    calls=CALLS,
    asked=st.lists(
        st.tuples(st.sampled_from([0, 1, 2, 3, 4, 9]), QUARTERS, st.integers(0, ITEMS + 1)),
        max_size=40,
    ),
)
def test_seen_is_what_any_event_before_says(tmp_path_factory, stored, calls, asked):
    dataset = make(tmp_path_factory.mktemp("data"), stored)
    history = SeenHistory(live_over(dataset, calls))
    dealt = [(e[0], e[1], e[2] - LATEST - 1) for e in stored] + [
        e[:3] for call in calls for e in call
    ]
    dealt = [(user, item, quarter) for user, item, quarter in dealt if item]
    columns = [np.array([one[n] for one in asked], np.int64) for n in range(3)]
    found = history.seen(columns[0], END + columns[1] * HOUR // 4, columns[2])
    assert found.dtype == bool
    assert found.tolist() == [
        any((user, item) == one[:2] and one[2] < quarter for one in dealt)
        for user, quarter, item in asked
    ]


def test_an_author_that_is_the_items_says_no_more_than_none(tmp_path):
    """The same event, whether both come in one call or in two."""
    dataset = make(tmp_path, [])
    named, unnamed = (3, 7, 1, "liked", None, 7 % AUTHORS), (3, 7, 1, "liked", None, 0)
    together, apart = LiveEvents(dataset), LiveEvents(dataset)
    together.append(reported([named, unnamed]))
    for event in (named, unnamed):
        apart.append(reported([event]))
    assert together.num_events(TimelineKind.EXPLICIT) == 1
    assert apart.num_events(TimelineKind.EXPLICIT) == 1


def test_threads_lose_nothing(tmp_path):
    view = LiveDataset.open(make(tmp_path / "data", EVERY_ACTION).path, live=tmp_path / "live")
    counters = counters_of(view)
    moment = np.full(ITEMS, END + 200 * HOUR)

    def work(user: int) -> list[int]:
        held = []
        for quarter in range(1, 11):
            view.live.append(reported([(user, 4, quarter, "liked", None, 0)]))
            counters.counts("item", np.arange(ITEMS), moment, [None])
            history = view.timelines.history(user, int(moment[0]), TimelineKind.EXPLICIT)
            held.append(int((history["timestamp"] > END).sum()))
        return held

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(2, 6))) == [list(range(1, 11))] * 4
    assert counters.counts("item", [4], moment[:1], [None]).sum() == 40
    view.live.close()


def test_many_live_events_lie_in_few_blocks(tmp_path):
    """One event a call, in any order of time, as a service reports them."""
    dataset = make(tmp_path, [])
    events = LiveEvents(dataset)
    draw = np.random.default_rng(0)
    rows = [
        (int(u), int(i), int(q), "liked", None, 0)
        for u, i, q in zip(
            draw.integers(1, USERS, 600), draw.integers(0, ITEMS, 600), draw.permutation(600) + 1,
            strict=True,
        )
    ]  # fmt: skip
    for row in rows:
        events.append(reported([row]))
    assert 0 < len(events.blocks(TimelineKind.EXPLICIT)) <= 10
    view = LiveDataset(dataset.path, dataset.manifest, live=events)
    found = view.timelines.histories([3], [END + 10**9], TimelineKind.EXPLICIT)
    expected = sorted((q, i) for u, i, q, *_ in rows if u == 3)
    assert found["item"].tolist() == [item for _, item in expected]
    assert found[LENGTHS].tolist() == [len(expected)]
