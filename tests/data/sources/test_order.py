from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.log import split_rows
from recsys.data.contract.schema import MILLISECONDS_PER_DAY
from recsys.data.sources.log import LogSource
from recsys.data.sources.log_options import LogOptions
from recsys.data.sources.order import (
    FIRST_MOMENT,
    last_events_apart,
    order_bounds,
    pseudo_times,
    users_apart,
)

START = 1_700_000_000_000
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(1, 9),
        st.integers(0, 6),
        st.sampled_from(["click", "impression", "hide"]),
    ),
    min_size=1,
    max_size=60,
)


def log(events: list[tuple[str, int, int, str]]) -> pl.DataFrame:
    names = ["user_id", "item_id", "timestamp", "action_type"]
    frame = pl.DataFrame(events, schema=names, orient="row")
    return frame.with_columns(pl.col("timestamp") + START)


def read(source: LogSource) -> dict[str, list[tuple[str, int, str]]]:
    """Per user (split, item, action) of the good rows in the order of their times."""
    bounds = source.split_bounds
    found = defaultdict(list)
    for chunk in source.events():
        good, _ = split_rows(chunk)
        rows = good.select("timestamp", "user_id", "item_id", "action_type").iter_rows()
        for time, user, item, action in rows:
            [split] = [name for name, (first, last) in bounds.items() if first <= time < last]
            found[user].append((time, str(split), item, action))
    return {user: [row[1:] for row in sorted(rows)] for user, rows in found.items()}


def test_bounds_follow_each_other() -> None:
    bounds = order_bounds(1)
    assert bounds["fit"] == (FIRST_MOMENT, FIRST_MOMENT + 100 * MILLISECONDS_PER_DAY)
    assert bounds["choose"][0] == bounds["fit"][1]
    assert bounds["report"][1] - bounds["report"][0] == MILLISECONDS_PER_DAY


def test_the_last_events_are_left_out_of_users_with_enough() -> None:
    user = pl.Series(["a"] * 6 + ["b"] * 4)
    counted = pl.Series([True, True, False, True, True, True] + [True] * 4)
    split = last_events_apart(user, counted, 2)
    assert (
        split.to_list() == ["fit", "choose", "choose", "choose", "report", "report"] + ["fit"] * 4
    )
    assert last_events_apart(user, counted, 1).to_list() == [
        *["fit"] * 4, "choose", "report", *["fit"] * 2, "choose", "report"
    ]  # fmt: skip


def test_pseudo_times_are_a_second_apart_within_a_split() -> None:
    bounds = order_bounds(1)
    user = pl.Series(["a", "b", "a", "a"])
    split = pl.Series(["fit", "fit", "fit", "report"])
    assert pseudo_times(user, split, bounds).to_list() == [
        FIRST_MOMENT,
        FIRST_MOMENT,
        FIRST_MOMENT + 1000,
        bounds["report"][0],
    ]
    short = {"fit": (0, 1_000)}
    with pytest.raises(DataError, match="a user has 2 events, more than"):
        pseudo_times(user[:3], split[:3], short)


def test_who_is_held_out_depends_on_the_ids_alone() -> None:
    users = pl.Series(range(100))
    apart = users_apart(users, 0.1, 0.2)
    assert {str(split): len(of) for split, of in apart.items()} == {
        "report": 20,
        "choose": 10,
        "fit": 70,
    }
    assert sorted(pl.concat(list(apart.values()))) == list(range(100))
    again = users_apart(users.reverse(), 0.1, 0.2)
    assert all(apart[split].equals(again[split]) for split in apart)
    with pytest.raises(ConfigError, match="leaves 1 of 2 users"):
        users_apart(users[:2], 0.1, 0.1)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 2), st.integers(1, 7))
def test_last_splits_of_a_log_equal_those_by_hand(
    events: list[tuple[str, int, int, str]], last: int, chunk_rows: int
) -> None:
    options = LogOptions(split="last", last_events=last, chunk_rows=chunk_rows)
    expected = {}
    for user in {event[0] for event in events}:
        own = list(dict.fromkeys(event for event in events if event[0] == user))  # once each
        own.sort(key=lambda event: event[2])  # those of one moment as in the log
        clicks = [position for position, event in enumerate(own) if event[3] == "click"]
        report = choose = len(own)
        if len(clicks) > 2 * last:
            choose, report = clicks[-2 * last], clicks[-last]
        expected[user] = [
            (
                "report" if place >= report else "choose" if place >= choose else "fit",
                event[1],
                event[3],
            )
            for place, event in enumerate(own)
        ]
    assert read(LogSource(log(events), options)) == expected


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_users_splits_hold_users_whole(events: list[tuple[str, int, int, str]]) -> None:
    users = {event[0] for event in events}
    source = LogSource(log(events), LogOptions(split="users", choose_users=0.2, report_users=0.2))
    if len(users) < 3:
        with pytest.raises(ConfigError, match="split=users leaves"):
            read(source)
        return
    found = read(source)
    assert all(len({row[0] for row in rows}) == 1 for rows in found.values())
    assert {rows[0][0] for rows in found.values()} == {"fit", "choose", "report"}
    assert source.tasks == ()
    assert source.requests_from(log(events)) is None


def test_without_times_the_rows_are_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "1.csv").write_text("user_id,item_id\n1,5\n2,9\n1,3\n")
    (folder / "2.csv").write_text("user_id,item_id\n1,3\n1,8\n")
    options = LogOptions(columns={"timestamp": None}, split="last", default_action="click")
    assert read(LogSource(folder, options)) == {
        1: [(s, item, "click") for s, item in zip(
            ["fit", "fit", "choose", "report"], [5, 3, 3, 8], strict=True
        )],
        2: [("fit", 9, "click")],
    }  # fmt: skip


def test_bad_rows_are_not_counted_and_keep_their_times() -> None:
    frame = log([("a", 1, 0, "click"), ("a", 2, 1, "what"), ("a", 3, 2, "click")])
    frame = pl.concat([frame, frame[2:]]).with_columns(request_time=pl.lit(START + 99))
    [chunk] = LogSource(frame, LogOptions(split="last")).events()
    good, bad = split_rows(chunk)
    assert good["timestamp"].to_list() == [FIRST_MOMENT, FIRST_MOMENT + 1000]
    assert bad["rejection_reason"].to_list() == ["action_type is unknown", "event: duplicated row"]
    assert bad["timestamp"].to_list() == [START + 1, START + 2]
