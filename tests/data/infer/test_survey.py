from __future__ import annotations

import itertools
from collections import Counter

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.contract.log_parts import log_parts
from recsys.data.infer.survey import Columns, Survey, survey

START = 1_714_521_600
DAY = 86_400
COLUMNS = Columns("u", "i", "t", "s", "a")

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", " c", "", None]),
        st.sampled_from([1, 2, 3, None]),
        st.sampled_from([START, START + 60, START + DAY, START + 9 * DAY, 4 * 10**9]),
        st.sampled_from(["view", "buy", None]),
    ),
    min_size=1,
    max_size=30,
)


def frame_of(rows: list[tuple[str | None, int | None, int, str | None]]) -> pl.DataFrame:
    schema = {"u": pl.String, "i": pl.Int64, "t": pl.Int64, "a": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def surveyed(frame: pl.DataFrame, rows_at_a_time: int) -> Survey:
    return survey(log_parts(frame, rows_at_a_time), COLUMNS)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 30))
def test_counts_are_those_of_the_rows_however_they_come(
    rows: list[tuple[str | None, int | None, int, str | None]], rows_at_a_time: int
) -> None:
    found = surveyed(frame_of(rows), rows_at_a_time)
    good = [row for row in rows if row[0] and row[1] is not None]
    past = [row for row in good if row[2] < 4 * 10**9]
    assert (found.rows, found.usable) == (len(rows), len(good))
    assert found.without_user == sum(not row[0] for row in rows)
    assert found.without_item == sum(row[1] is None for row in rows)
    assert found.padded["u"] == sum(row[0] == " c" for row in rows)
    assert found.actions == Counter(row[3] for row in rows)
    assert found.users.distinct == len({row[0] for row in good})
    assert found.items.distinct == len({row[1] for row in good})
    assert found.future == len(good) - len(past)
    assert found.days == Counter(row[2] // DAY for row in past)
    assert found.first == (1_000 * min(row[2] for row in past) if past else None)
    assert found.last == (1_000 * max(row[2] for row in past) if past else None)
    assert found.in_order == all(one[2] <= other[2] for one, other in itertools.pairwise(good))
    assert found.events.repeated() == len(good) - len(set(good))


def test_a_chunk_in_another_unit_is_without_times() -> None:
    rows = [("a", 1, START, "view"), ("a", 1, 1_000 * START, "view")]
    found = surveyed(frame_of(rows), 1)
    assert (found.without_time, found.usable) == (1, 1)


def test_ids_are_numbers_only_where_all_are() -> None:
    frame = frame_of([("7", 1, START, None), ("007", 2, START, None)])
    found = surveyed(frame, 10)
    assert found.user_type.dtype == pl.String()
    assert found.item_type.dtype == pl.Int64()
