from __future__ import annotations

import datetime
from typing import Any

import polars as pl
import pytest

from recsys.data.contract.log_parts import log_parts
from recsys.data.infer.profile import Kind, profile_of, sample_of

MOMENTS = [1_714_521_600, 1_714_608_000, 1_714_694_400]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], Kind.WHOLE),
        (["1", "2", None], Kind.WHOLE),
        ([1.5, 2.0, float("nan")], Kind.NUMBER),
        (["1.5", "2"], Kind.NUMBER),
        ([14.99, 7.5], Kind.NUMBER),
        (["a", "b"], Kind.TEXT),
        (["007", "x7"], Kind.TEXT),
        ([True, False], Kind.FLAG),
        (["action|drama", "comedy", "drama|comedy"], Kind.LIST),
        ([["a"], ["b", "c"]], Kind.LIST),
        (["['a', 'b']", "[]"], Kind.LIST),
        (["[0,1)", "[1,10)"], Kind.TEXT),
        ([[0.1, 0.2, 0.3, 0.4]] * 2, Kind.VECTOR),
        (["0.1 0.2 0.3 -0.4"] * 2, Kind.VECTOR),
        (["[0.1, 0.2, 0.3, 4e-1]"] * 2, Kind.VECTOR),
        (["https://a.example/1.jpg", "http://b.example"], Kind.LINK),
        ([datetime.date(2024, 5, 1)], Kind.TIME),
        ([datetime.time(7, 30)], Kind.OTHER),
        ([datetime.timedelta(seconds=5)], Kind.OTHER),
        ([{"a": 1}], Kind.OTHER),
        ([b"\xff", b"b"], Kind.OTHER),
        ([None, None], Kind.EMPTY),
        (["", "  "], Kind.EMPTY),
        ([], Kind.EMPTY),
    ],
)
def test_kinds_of_values(values: list[Any], kind: Kind) -> None:
    assert profile_of(pl.Series("count", values)).kind is kind


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (MOMENTS, "s"),
        ([1_000 * one for one in MOMENTS], "ms"),
        ([str(1_000_000 * one) for one in MOMENTS], "us"),
        ([10**9 * one for one in MOMENTS], "ns"),
        ([float(one) for one in MOMENTS], "s"),
        (["2024-05-01", "2024-05-02T07:00:00Z", "2024-05-03 07:00:00.5+02:00"], "iso"),
        ([*map(str, MOMENTS), "soon"], "s"),
    ],
)
def test_units_of_times(values: list[Any], unit: str) -> None:
    profile = profile_of(pl.Series("when", values))
    assert (profile.kind, profile.unit) == (Kind.TIME, unit)


def test_large_ids_are_no_times() -> None:
    assert profile_of(pl.Series("user_id", MOMENTS)).kind is Kind.WHOLE


def test_what_is_counted() -> None:
    profile = profile_of(pl.Series("c", ["a b", "a b", "c d e f", None, " "]))
    assert (profile.rows, profile.known, profile.distinct) == (5, 3, 2)
    assert profile.words == pytest.approx(8 / 3)
    assert profile.values[0] == "a b"
    numbers = profile_of(pl.Series("n", ["3", "1", "10"]))
    assert (numbers.least, numbers.median, numbers.most) == (1, 3, 10)
    assert profile_of(pl.Series("n", [5, 6, 7])).is_row_number
    assert not profile_of(pl.Series("n", [5, 7, 6])).is_row_number


def test_genres_between_blanks_are_lists_and_titles_are_texts() -> None:
    genres = ["action drama", "comedy drama", "action comedy"] * 4
    assert profile_of(pl.Series("class", genres), spaced=True).kind is Kind.LIST
    assert profile_of(pl.Series("movie_title", genres), spaced=True).kind is Kind.TEXT
    assert profile_of(pl.Series("class", genres)).kind is Kind.TEXT
    stories = [f"the story of number{place}" for place in range(9)]
    assert profile_of(pl.Series("text", stories), spaced=True).kind is Kind.TEXT


def test_a_sample_has_the_columns_of_all_files() -> None:
    first, second = pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": ["x"], "b": [1.5]})
    parts = [*log_parts(first, 10), *log_parts(second, 10)]
    sample = sample_of(parts, rows=2)
    assert sample.to_dict(as_series=False) == {"a": ["1", "x"], "b": [None, 1.5]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["4,1", "12"], True),
        (["-0,125", "3"], True),
        (["1,234", "12,000"], False),
        (["1,2,3", "4,5"], False),
        (["4.1", "12"], False),
        (["a,b", "c"], False),
    ],
)
def test_decimal_commas(values: list[str], expected: bool) -> None:
    assert profile_of(pl.Series("x", values)).with_commas is expected
