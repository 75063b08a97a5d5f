"""The timeline store against a brute-force reading of the same events."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.contract.schema import ACTION_TYPES, LENGTHS, TimelineKind
from recsys.data.contract.schema import TIMELINE_COLUMNS as COLUMNS
from recsys.data.stores.timelines import EVENT_SCHEMA, TimelineStore, TimelineWriter
from recsys.data.stores.timelines.layout import timeline_marks
from tests.rewritten import rewrite

IMPRESSION, CLICK = ACTION_TYPES.index("impression"), ACTION_TYPES.index("click")


def damaged(folder: Path) -> list[str]:
    """What is wrong with the files of a store."""
    marks = timeline_marks(folder)
    return [f"{path} {problem}" for path, mark in marks.items() if (problem := mark.problem(path))]


def events(users: list[int], times: list[int], actions: list[int], first_item: int = 1):
    """A frame whose items number the rows, so that a test sees which row it got."""
    count = len(users)
    return pl.DataFrame(
        {
            "user": users,
            "item": range(first_item, first_item + count),
            "author": [7] * count,
            "topic": [8] * count,
            "timestamp": times,
            "media_type": [1] * count,
            "surface": [2] * count,
            "action_type": actions,
            "dwell_time": [None if row % 3 == 0 else float(row) for row in range(count)],
            "video_duration": [float(row) for row in range(count)],
        },
        schema=EVENT_SCHEMA,
    )


def brute_force(log: pl.DataFrame, user: int, before: int, kind: TimelineKind, max_events: int):
    """The expected history, by filtering and a stable sort of the whole log."""
    implicit = pl.col("action_type") == IMPRESSION
    chosen = implicit if kind == TimelineKind.IMPLICIT else ~implicit
    history = log.filter(chosen, pl.col("user") == user, pl.col("timestamp") < before)
    return history.sort("timestamp", maintain_order=True).tail(max_events)


def assert_history(history: dict[str, np.ndarray], expected: pl.DataFrame, kind) -> None:
    assert set(history) == set(COLUMNS[kind])
    for name, column in history.items():
        assert column.dtype == COLUMNS[kind][name]
        wanted = expected[name]
        if name in ("dwell_time", "video_duration"):
            wanted = wanted.fill_null(float("nan"))
        np.testing.assert_array_equal(column, wanted.to_numpy())


rows = st.lists(
    st.tuples(
        st.integers(0, 5), st.integers(0, 12), st.sampled_from([IMPRESSION, CLICK, CLICK + 1])
    ),
    max_size=40,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chunks=st.lists(st.lists(rows, min_size=1, max_size=3), max_size=3),
    requests=st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 14)), max_size=12),
    max_events=st.sampled_from([0, 1, 3, 35_000]),
    num_partitions=st.integers(1, 4),
    changes=st.lists(st.sampled_from(["compact", "delete"]), max_size=2),
)
def test_histories_equal_brute_force(
    tmp_path_factory, chunks, requests, max_events, num_partitions, changes
):
    path = tmp_path_factory.mktemp("store")
    log, count = pl.DataFrame(schema=EVENT_SCHEMA), 0
    with TimelineWriter(path, num_partitions) as writer:
        for chunk in chunks:
            frames = []
            for part in chunk:
                users, times, actions = (list(x) for x in zip(*part, strict=True)) if part else (
                    [], [], []
                )  # fmt: skip
                frames.append(events(users, times, actions, first_item=count))
                count += len(part)
            log = pl.concat([log, *frames])
            assert writer.append(frames) == sum(len(part) for part in chunk)
        for change in changes:
            if change == "compact":
                writer.compact()
            else:
                gone = log.filter(pl.col("user").is_in([1, 3]))
                assert writer.delete_users([1, 3, 99]) == gone.height
                log = log.filter(~pl.col("user").is_in([1, 3]))
    store = TimelineStore.open(path)
    assert damaged(path) == []
    assert store.users().tolist() == log["user"].unique().sort().to_list()
    users, before = [u for u, _ in requests], [t for _, t in requests]
    for kind in TimelineKind:
        expected = [brute_force(log, *request, kind, max_events) for request in requests]
        batch = store.histories(users, before, kind, max_events)
        lengths = batch.pop(LENGTHS)
        assert lengths.dtype == np.int64
        assert lengths.tolist() == [frame.height for frame in expected]
        assert store.lengths(users, before, kind, max_events).tolist() == lengths.tolist()
        assert_history(batch, pl.concat([log.clear(), *expected]), kind)
        for request, frame in zip(requests, expected, strict=True):
            assert_history(store.history(*request, kind, max_events), frame, kind)


def test_planted_future_event_is_never_seen(tmp_path: Path):
    """A click at the very moment of the request is the label; one later is the future."""
    with TimelineWriter(tmp_path) as writer:
        writer.append([events([1, 1, 1], [999, 1000, 1001], [CLICK] * 3)])
    store = TimelineStore.open(tmp_path)
    assert store.history(1, 1000, TimelineKind.EXPLICIT)["timestamp"].tolist() == [999]
    batch = store.histories([1, 1, 1], [999, 1000, 1001], TimelineKind.EXPLICIT)
    assert batch[LENGTHS].tolist() == [0, 1, 2]
    assert batch["timestamp"].tolist() == [999, 999, 1000]


def test_many_requests_at_once_equal_one_at_a_time(tmp_path: Path):
    """Many requests are searched all at once, few of them one by one."""
    generator = np.random.default_rng(0)
    users, times = generator.integers(0, 5, 2_000), generator.integers(0, 300, 2_000)
    with TimelineWriter(tmp_path, num_partitions=2) as writer:
        writer.append([events(users.tolist(), times.tolist(), [CLICK] * 2_000)])
    store = TimelineStore.open(tmp_path)
    users, before = generator.integers(0, 6, 1_000), generator.integers(-1, 302, 1_000)
    together = store.histories(users, before, TimelineKind.EXPLICIT, 40)
    apart = [
        store.history(user, moment, TimelineKind.EXPLICIT, 40)["item"]
        for user, moment in zip(users.tolist(), before.tolist(), strict=True)
    ]
    assert together[LENGTHS].tolist() == [len(items) for items in apart]
    assert together["item"].tolist() == np.concatenate(apart).tolist()


def test_late_events_of_a_newer_segment_are_merged_by_time(tmp_path: Path):
    with TimelineWriter(tmp_path) as writer:
        writer.append([events([1, 1], [10, 30], [CLICK] * 2, first_item=1)])
        writer.append([events([1, 1], [10, 20], [CLICK] * 2, first_item=3)])
    history = TimelineStore.open(tmp_path).history(1, 30, TimelineKind.EXPLICIT)
    assert history["item"].tolist() == [1, 3, 4]  # the older segment first in the tie at 10


def test_history_in_one_segment_is_a_read_only_view(tmp_path: Path):
    with TimelineWriter(tmp_path) as writer:
        writer.append([events([1, 1], [10, 30], [CLICK] * 2)])
    item = TimelineStore.open(tmp_path).history(1, 99, TimelineKind.EXPLICIT)["item"]
    assert item.base is not None
    with pytest.raises(ValueError, match="read-only"):
        item[0] = 5


def test_reader_sees_the_store_as_it_was_opened(tmp_path: Path):
    with TimelineWriter(tmp_path) as writer:
        writer.append([events([1, 2], [10, 20], [CLICK] * 2)])
        reader = TimelineStore.open(tmp_path)
        writer.append([events([1], [15], [CLICK])])
        writer.delete_users([2])
        writer.compact()
    assert reader.history(1, 99, TimelineKind.EXPLICIT)["timestamp"].tolist() == [10]
    assert reader.history(2, 99, TimelineKind.EXPLICIT)["timestamp"].tolist() == [20]
    reopened = pickle.loads(pickle.dumps(reader))
    assert reopened.history(1, 99, TimelineKind.EXPLICIT)["timestamp"].tolist() == [10, 15]
    assert reopened.users().tolist() == [1]


def test_missing_and_damaged_stores_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="holds no timelines"):
        TimelineStore.open(tmp_path)
    with TimelineWriter(tmp_path, num_partitions=1) as writer:
        writer.append([events([1, 2], [10, 20], [CLICK] * 2)])
    [block] = tmp_path.glob("*.block")
    content = block.read_bytes()

    block.write_bytes(content[:-8] + bytes(8 * [255]))
    assert damaged(tmp_path) == [f"{block} is not what was written (another CRC-32)"]
    block.write_bytes(content[:-1])
    with pytest.raises(DataError, match="bytes"):
        TimelineStore.open(tmp_path)
    block.unlink()
    with pytest.raises(DataError, match="is missing"):
        TimelineStore.open(tmp_path)
    current = tmp_path / "CURRENT.json"

    def elsewhere(content: dict) -> None:
        content["segments"][0]["blocks"][0]["file"] = f"../{block.name}"

    rewrite(current, "list of timelines", elsewhere)
    with pytest.raises(DataError, match="which is no file of its folder"):
        TimelineStore.open(tmp_path)
    current.write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        TimelineStore.open(tmp_path)


def test_more_files_than_may_be_opened_is_a_sentence(tmp_path: Path):
    with TimelineWriter(tmp_path, 2) as writer:
        for day in range(12):
            writer.append([events(list(range(10)), [day] * 10, [CLICK] * 10)])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # the limit is on the number of a file, and earlier tests may have left files open
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in itertools.count() if number not in taken)
    [last] = itertools.islice(free, 19, 20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, limits[1]))
    try:
        with pytest.raises(DataError, match=r"24 files in 12 segments.*recsys data compact"):
            TimelineStore.open(tmp_path)
        gc.collect()  # the error's traceback holds the files that could be opened
        with TimelineWriter(tmp_path) as writer:
            writer.compact()
        assert TimelineStore.open(tmp_path).num_events(TimelineKind.EXPLICIT) == 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
