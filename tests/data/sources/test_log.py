from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.data.contract.log import LogReader, split_rows
from recsys.data.contract.schema import Task
from recsys.data.sources import open_source
from recsys.data.sources.log import LogSource
from recsys.data.sources.log_options import LogOptions
from recsys.data.sources.log_rows import WATCH_TIME, derive_rows

START = 1_700_000_000_000
WINDOW = 10

EVENTS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.integers(1, 2),
        st.integers(0, 30),
        st.sampled_from(["impression", "impression", "click", "liked"]),
    ),
    max_size=25,
)


def events_frame(events: list[tuple[int, int, int, str]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        events,
        schema={
            "user_id": pl.Int64,
            "item_id": pl.Int64,
            "timestamp": pl.Int64,
            "action_type": pl.String,
        },
        orient="row",
    ).with_columns(pl.col("timestamp") + START, dwell_time=pl.int_range(pl.len()).cast(pl.Float32))
    if frame.is_empty():
        return frame
    good, _ = split_rows(pl.concat(list(LogReader(frame))))
    return good


def brute_force(events: list[tuple[int, int, int, str]], action: str) -> list[float]:
    """Labels of the impressions in (time, log order): each action looks for its impression."""
    impressions = sorted(
        (event for event in events if event[3] == "impression"), key=lambda event: event[2]
    )
    labels = [0.0] * len(impressions)
    for user, item, moment, kind in events:
        candidates = [
            position
            for position, (u, i, shown, _) in enumerate(impressions)
            if kind == action and (u, i) == (user, item) and shown <= moment <= shown + WINDOW
        ]
        if candidates:
            labels[max(candidates)] = 1.0
    return labels


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_labels_equal_a_search_by_hand(events: list[tuple[int, int, int, str]]) -> None:
    frame = events_frame(events)
    if frame.is_empty():
        return
    rows = derive_rows(frame, dict.fromkeys((Task("click"), Task("liked"), WATCH_TIME), WINDOW))
    assert rows["label_click"].to_list() == brute_force(events, "click")
    assert rows["label_liked"].to_list() == brute_force(events, "liked")
    assert rows["request_time"].is_sorted()


def test_an_action_counts_for_the_latest_impression_within_the_window() -> None:
    frame = events_frame(
        [
            (1, 1, 0, "impression"),
            (1, 1, 5, "impression"),
            (1, 1, 15, "click"),  # ten after the second: still inside
            (1, 1, 16, "liked"),  # eleven after it: outside
            (1, 2, 16, "impression"),
            (1, 2, 15, "click"),  # before its impression
        ]
    )
    rows = derive_rows(frame, dict.fromkeys((Task("click"), Task("liked")), WINDOW))
    assert rows["label_click"].to_list() == [0.0, 1.0, 0.0]
    assert rows["label_liked"].to_list() == [0.0, 0.0, 0.0]


def test_request_time_groups_rows_and_watch_time_is_the_dwell_time() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1],
            "item_id": [1, 2],
            "timestamp": [START + 5, START + 9],
            "request_time": [START, START],
            "dwell_time": [3.0, None],
            "surface": ["feed", None],
        }
    )
    events, _ = split_rows(pl.concat(list(LogReader(frame))))
    rows = derive_rows(events, {WATCH_TIME: WINDOW})
    assert rows["request_time"].to_list() == [START, START]
    assert rows["label_watch_time"].to_list() == [3.0, None]
    assert rows["surface"].to_list() == ["feed", None]


def test_tasks_are_the_actions_of_the_log_and_the_split_is_by_time() -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1] * 11,
            "item_id": [1] * 11,
            "timestamp": [START + 10 * step for step in range(11)],
            "action_type": ["impression"] * 9 + ["liked", "click"],
        }
    )
    source = LogSource(frame, LogOptions(choose_fraction=0.2, report_fraction=0.3))
    assert [task.name for task in source.tasks] == ["click", "liked"]
    assert source.split_bounds == {
        "fit": (START, START + 51),
        "choose": (START + 51, START + 71),
        "report": (START + 71, START + 101),
    }
    assert LogSource(frame, LogOptions(tasks=["save"])).tasks == (Task("save"),)


def test_bounds_outside_the_log_and_unknown_tasks_are_sentences() -> None:
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 1], "timestamp": [START, START + 99]})
    with pytest.raises(ConfigError, match="must follow each other inside the log, which covers"):
        _ = LogSource(frame, LogOptions(fit_until="2030-01-01")).split_bounds
    with pytest.raises(ConfigError, match="teleport is no task"):
        _ = LogSource(frame, LogOptions(tasks=["teleport"])).tasks
    with pytest.raises(ConfigError, match=r"options\.fit_until=tomorrow is no moment"):
        _ = LogSource(frame, LogOptions(fit_until="tomorrow")).split_bounds


def test_unknown_sources_and_options_are_sentences(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="source=nowhere is not known"):
        open_source("nowhere", tmp_path, {})
    with pytest.raises(ConfigError, match=r"did you mean `options\.attribution_hours`\?"):
        open_source("log", tmp_path, {"attribution_hour": 3})
    with pytest.raises(ConfigError, match=r"options\.q of source=log.*its options: .*fit_until"):
        open_source("log", tmp_path, {"q": 3})
    with pytest.raises(
        ConfigError, match=r"options\.attribution_hours of source=log.*'soon'[^;]*\.$"
    ):
        open_source("log", tmp_path, {"attribution_hours": "soon"})
    with pytest.raises(ConfigError, match=r"options\.x of source=movielens.*its options: none"):
        open_source("movielens", tmp_path, {"x": 3})
