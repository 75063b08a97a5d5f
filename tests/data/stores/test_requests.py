"""The request store against a brute-force grouping of the same rows."""

from __future__ import annotations

import pickle
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.contract.schema import Task, TaskKind
from recsys.data.prepare import request_spill, request_writer
from recsys.data.prepare.request_spill import RequestColumns, spill_requests
from recsys.data.prepare.request_writer import (
    Extended,
    RequestCounts,
    extend_spilled,
    present_with,
    write_requests,
)
from recsys.data.stores.requests import KIND, RequestStore
from tests.rewritten import rewrite

TASKS = (Task("liked"), Task("watch_time", TaskKind.REGRESSION))


def request_rows(users: list[int], times: list[int], first_item: int = 1) -> pl.DataFrame:
    """A frame whose items number the rows, so that a test sees which row it got."""
    count = len(users)
    items = list(range(first_item, first_item + count))
    return pl.DataFrame(
        {
            "user": users,
            "request_time": times,
            "item": items,
            "label_liked": [None if item % 3 == 0 else item % 2 for item in items],
            "label_watch_time": [item / 2 for item in items],
            "hour": [item % 24 for item in items],
            "battery": [item / 100 for item in items],
            "best_absolute_liked": [0.25] * count,
            "best_within_reach_liked": [0.5] * count,
            "best_absolute_watch_time": [1.0] * count,
            "best_within_reach_watch_time": [2.0] * count,
        },
        schema_overrides={
            "user": pl.Int32,
            "item": pl.Int32,
            "request_time": pl.Int64,
            "label_liked": pl.Int8,
        },
    )


def write(path: Path, frames, **options) -> RequestCounts:
    return write_requests(path, frames, TASKS, ("hour",), ("battery",), **options)


def extend(path: Path, frame, *options) -> Extended:
    columns = RequestColumns.of_store(path)
    present = present_with(path, columns.present_in(frame.columns))
    piece = spill_requests(frame, columns, present, path / "piece")
    return extend_spilled(path, present, [piece], *options)


chunks = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30), max_size=3
)


@settings(max_examples=40, deadline=None)
@given(chunks=chunks, sort_bytes=st.sampled_from([200, 1 << 30]))
def test_rows_are_grouped_and_sorted(tmp_path_factory, chunks, sort_bytes):
    """200 bytes make several buckets of time, so both ways of sorting are seen."""
    path = tmp_path_factory.mktemp("requests")
    frames, count = [], 0
    for chunk in chunks:
        frames.append(request_rows([u for u, _ in chunk], [t for _, t in chunk], count + 1))
        count += len(chunk)
    log = pl.concat([request_rows([], []), *frames], how="vertical_relaxed")
    expected = log.sort("request_time", "user", maintain_order=True)
    moments = expected.select("user", "request_time").unique(maintain_order=True)

    counts = write(path, frames, sort_bytes=sort_bytes)
    store = RequestStore.open(path)
    assert (
        counts == RequestCounts(moments.height, count) == RequestCounts(len(store), len(store.item))
    )
    assert store.user.tolist() == moments["user"].to_list()
    assert store.request_time.tolist() == moments["request_time"].to_list()
    assert store.item.tolist() == expected["item"].to_list()
    assert store.offsets[0] == 0
    for position, (first, last) in enumerate(pairwise(store.offsets.tolist())):
        rows = expected[first:last]
        assert rows["user"].unique().to_list() == [store.user[position]]
        assert rows["request_time"].unique().to_list() == [store.request_time[position]]
    labels = expected.select("label_liked", "label_watch_time").cast(pl.Float32)
    np.testing.assert_array_equal(store.labels, labels.fill_null(float("nan")).to_numpy())
    assert store.context_categorical[:, 0].tolist() == expected["hour"].to_list()
    np.testing.assert_array_equal(
        store.context_dense[:, 0], expected["battery"].cast(pl.Float32).to_numpy()
    )
    if count:
        assert store.best_absolute is not None and store.best_within_reach is not None
        assert store.best_absolute.tolist() == [[0.25, 1.0]] * count
        assert store.best_within_reach.tolist() == [[0.5, 2.0]] * count


pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(
    former=pairs,
    added=pairs,
    replaced_after=st.none() | st.integers(-1, 9),
    delay=st.none() | st.integers(0, 3),
    sort_bytes=st.sampled_from([200, 1 << 30]),
    chunk_rows=st.sampled_from([2, 1_000]),
)
def test_rows_added_are_as_if_written_at_once(
    tmp_path_factory, former, added, replaced_after, delay, sort_bytes, chunk_rows
):
    """Those shown after a moment leave; with ``delay`` items are shown later than requested."""
    path = tmp_path_factory.mktemp("requests")
    old, new = (
        request_rows([u for u, _ in rows], [t for _, t in rows], first)
        for rows, first in ((former, 1), (added, 101))
    )
    if delay is not None:
        old = old.with_columns(shown_at=pl.col("request_time") + pl.col("item") % 3 * delay)
    with pytest.MonkeyPatch.context() as patch:
        for module in (request_writer, request_spill):
            patch.setattr(module, "CHUNK_ROWS", chunk_rows)
        write(path / "store", [old])
        extended = extend(path / "store", new, replaced_after, sort_bytes)
    shown = pl.col("request_time" if delay is None else "shown_at")
    gone = old.filter(shown > (100 if replaced_after is None else replaced_after))
    kept = old.join(gone, on="item", how="anti", maintain_order="left")
    if delay is not None:
        new = new.with_columns(shown_at=pl.col("request_time"))
    write(path / "at_once", [kept, new])
    expected, found = RequestStore.open(path / "at_once"), RequestStore.open(path / "store")
    for one in fields(RequestStore):
        if one.name not in ("path", "tasks", "period"):
            np.testing.assert_array_equal(getattr(found, one.name), getattr(expected, one.name))
    assert (extended.requests, extended.rows) == (len(expected), expected.num_rows)
    assert extended.replaced == gone.height
    assert extended.labels["liked"] == (gone["label_liked"].sum() or 0)


def test_propensities_are_kept_where_rows_have_them(tmp_path: Path):
    write(tmp_path, [request_rows([1, 2], [5, 5])])
    assert RequestStore.open(tmp_path).propensity is None
    drawn = pl.Series([None, 0.25, float("nan")], dtype=pl.Float64)
    extend(tmp_path, request_rows([3, 3, 4], [7, 7, 9]).with_columns(propensity=drawn))
    nan = np.nan
    np.testing.assert_array_equal(
        RequestStore.open(tmp_path).propensity, [nan, nan, nan, 0.25, nan]
    )
    np.testing.assert_array_equal(RequestStore.open(tmp_path, (7, 9)).propensity, [nan, 0.25])


def test_a_period_is_a_stretch_of_the_store(tmp_path: Path):
    write(tmp_path, [request_rows([1, 2, 1, 3, 3, 1], [5, 5, 6, 7, 7, 9])])
    for period, items, lengths in (
        ((5, 6), [1, 2], [1, 1]),
        ((6, 9), [3, 4, 5], [1, 2]),
        ((7, 100), [4, 5, 6], [2, 1]),
        ((8, 9), [], []),
        ((0, 100), [1, 2, 3, 4, 5, 6], [1, 1, 1, 2, 1]),
    ):
        store = pickle.loads(pickle.dumps(RequestStore.open(tmp_path, period)))
        assert store.item.tolist() == items and np.diff(store.offsets).tolist() == lengths
        assert len(store) == len(lengths) and store.offsets[0] == 0
        row_id, _ = store.row_ids(np.arange(len(store)))
        assert row_id.tolist() == list(range(len(items)))
        assert store.labels.shape == (len(items), 2)


def test_row_ids_of_chosen_requests(tmp_path: Path):
    write(tmp_path, [request_rows([1, 1, 2, 3, 3, 3], [5, 5, 6, 7, 7, 7])])
    row_id, rows_per_request = RequestStore.open(tmp_path).row_ids(np.array([2, 0]))
    assert row_id.tolist() == [3, 4, 5, 0, 1]
    assert rows_per_request.tolist() == [3, 2]


def test_truth_and_context_are_optional(tmp_path: Path):
    frame = request_rows([1], [5]).select("user", "item", "request_time", "label_liked")
    write_requests(tmp_path, [frame], TASKS[:1])
    store = RequestStore.open(tmp_path)
    assert store.best_absolute is None and store.best_within_reach is None
    assert store.context_categorical.shape == store.context_dense.shape == (1, 0)
    assert store.tasks == ("liked",)


def test_pickle_opens_the_store_again(tmp_path: Path):
    write(tmp_path, [request_rows([1] * 1000, [5] * 1000)])
    pickled = pickle.dumps(RequestStore.open(tmp_path))
    assert len(pickled) < 1000  # a path, not the rows
    assert pickle.loads(pickled).num_rows == 1000


def test_failure_leaves_the_old_store(tmp_path: Path, monkeypatch):
    write(tmp_path, [request_rows([1], [5])])
    with monkeypatch.context() as patch:
        patch.setattr(request_writer, "write_json", lambda *_: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            write(tmp_path, [request_rows([2, 3], [6, 6])])
    reader = RequestStore.open(tmp_path)
    assert reader.user.tolist() == [1]
    write(tmp_path, [request_rows([2, 3], [6, 6])])
    assert reader.user.tolist() == [1]  # opened before the change
    assert RequestStore.open(tmp_path).user.tolist() == [2, 3]
    assert len(list(tmp_path.glob("*.000002.bin"))) == len(list(tmp_path.glob("*.bin")))
    assert not list(tmp_path.glob("spill-*"))


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (request_rows([1], [5]).drop("label_liked"), "lack the column label_liked"),
        (request_rows([1], [5]).with_columns(pl.lit(None).alias("item")), "item .* null"),
        (request_rows([1], [5]).with_columns(pl.lit("x").alias("hour")), "does not fit its type"),
    ],
)
def test_bad_frame_is_one_sentence(tmp_path: Path, frame, sentence):
    with pytest.raises(DataError, match=sentence):
        write(tmp_path, [frame])
    with pytest.raises(DataError, match="holds no requests"):
        RequestStore.open(tmp_path)


def test_damaged_store_is_named(tmp_path: Path):
    write(tmp_path, [request_rows([1], [5])])
    [labels] = tmp_path.glob("labels.*")
    manifest = tmp_path / "requests.json"
    written = manifest.read_text()
    for place in (f"../{labels.name}", str(labels)):
        entry = {"arrays": {"labels": {"file": place}}}
        rewrite(manifest, KIND, entry)
        with pytest.raises(DataError, match="which is no file of its folder"):
            RequestStore.open(tmp_path)
    manifest.write_text(written)
    labels.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes, 8 were written"):
        RequestStore.open(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="is missing"):
        RequestStore.open(tmp_path)
