from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.time_columns import TimeFormat

SEVEN = 1_714_546_800_000  # 1 May 2024, 07:00 UTC
HOUR = 3_600_000


def read(values: list | pl.Series, unit: str = "ms", zone: str = "UTC") -> list[int | None]:
    column = values if isinstance(values, pl.Series) else pl.Series("t", values, strict=False)
    return TimeFormat(unit, zone).milliseconds("file", column).to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01T07:00:00", SEVEN),
        ("2024-05-01 07:00:00", SEVEN),
        ("2024-05-01T07:00", SEVEN),
        ("2024-05-01", SEVEN - 7 * HOUR),
        ("2024-05-01T07:00:00.25", SEVEN + 250),
        ("2024-05-01 07:00:00,123456789", SEVEN + 123),
        ("2024-05-01T07:00:00Z", SEVEN),
        ("2024-05-01 07:00:00 UTC", SEVEN),
        ("2024-05-01T07:00:00+02:00", SEVEN - 2 * HOUR),
        ("2024-05-01T07:00:00.5-0330", SEVEN + 500 + HOUR * 7 // 2),
        ("2024-05-01T07:00+02", SEVEN - 2 * HOUR),
    ],
)
def test_iso_texts(text: str, expected: int) -> None:
    assert read([text, None, text], "iso") == [expected, None, expected]


@given(
    st.datetimes(datetime(1974, 1, 1), datetime(2200, 1, 1)),
    st.sampled_from([None, 0, 90, -330]),
    st.sampled_from(["T", " "]),
)
def test_iso_texts_are_what_python_reads(
    moment: datetime, minutes: int | None, between: str
) -> None:
    text = moment.isoformat(between)
    offset = timedelta(minutes=minutes or 0)
    if minutes is not None:
        sign = "-" if minutes < 0 else "+"
        text += f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    exact = (moment.replace(tzinfo=UTC) - offset - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(
        milliseconds=1
    )
    assert read([text], "iso") == [int(exact // 1)]


def test_offsets_that_no_clock_has_are_no_times() -> None:
    fine = "2024-05-01T07:00"
    texts = [f"{fine}{offset}" for offset in ("+14:00", "+15:00", "-02:60", "+99:99")]
    read_back = read([*texts, *[fine] * 4], "iso")
    assert read_back[:4] == [SEVEN - 14 * HOUR, None, None, None]


def test_a_zone_is_that_of_texts_that_name_none() -> None:
    texts = ["2024-05-01T07:00:00", "2024-05-01T07:00:00Z", "2024-12-01"]
    winter = SEVEN + 214 * 24 * HOUR - 8 * HOUR
    assert read(texts, "iso", "Europe/Berlin") == [SEVEN - 2 * HOUR, SEVEN, winter]
    # the hour that the clock leaves out is no moment, the one it has twice its first
    assert read(["2024-03-31T02:30", "2024-10-27T02:30"], "iso", "Europe/Berlin") == [
        None,
        1_729_989_000_000,
    ]


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        ("s", [1_714_546_800, 1_714_546_800.25], [SEVEN, SEVEN + 250]),
        ("s", ["1714546800.0", "1714546800", "1.7145468e9"], [SEVEN] * 3),
        ("ms", ["1714546800000.0", "1714546800000"], [SEVEN] * 2),
        ("us", [SEVEN * 1000 + 999], [SEVEN]),
        ("ns", [SEVEN * 1_000_000 + 999_999], [SEVEN]),
        ("ms", [float(SEVEN), float("nan"), None], [SEVEN, None, None]),
        ("s", [1_714_546_800, 2**62], [SEVEN, 2**53 * 1000]),  # out of range, not overflown
    ],
)
def test_numbers_of_every_unit(unit: str, values: list, expected: list) -> None:
    assert read(values, unit) == expected


@pytest.mark.parametrize("kind", [pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("ms")])
def test_datetimes_need_no_unit(kind: pl.DataType) -> None:
    moments = pl.from_epoch(pl.Series("t", [SEVEN]), "ms").cast(kind)
    assert read(moments, "s") == [SEVEN]
    assert read(moments, "s", "Europe/Berlin") == [SEVEN - 2 * HOUR]
    known = moments.dt.replace_time_zone("America/New_York")
    assert read(known, "s", "Europe/Berlin") == [SEVEN + 4 * HOUR]
    assert read(moments.cast(pl.Date)) == [SEVEN - 7 * HOUR]


@pytest.mark.parametrize(
    ("unit", "values", "sentence"),
    [
        ("ms", [1_714_546_800], r"look like seconds.*set options\.time_unit=s\."),
        ("s", [SEVEN], r"look like milliseconds.*set options\.time_unit=ms\."),
        ("ms", ["2024-05-01"], r"look like texts as in ISO 8601.*set options\.time_unit=iso\."),
        ("iso", ["1714546800.0"], r"look like seconds; expected texts.*options\.time_unit=s\."),
        ("iso", ["yesterday"], "expected texts as in ISO 8601, found String values"),
        ("ms", ["yesterday"], "expected a whole number of milliseconds"),
        ("ms", [True], "found Boolean values"),
    ],
)
def test_another_unit_is_a_sentence(unit: str, values: list, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read(values, unit)


def test_single_misfits_are_null() -> None:
    assert read(["2024-05-01", "tomorrow", "2024-02-30", "2024-05-01"], "iso")[1:3] == [None, None]
    assert read([SEVEN, SEVEN, "x"]) == [SEVEN, SEVEN, None]


def test_an_unknown_zone_is_a_sentence() -> None:
    for zone in ("Mars/Olympus", "../etc", ""):
        with pytest.raises(ConfigError, match="is no known time zone"):
            TimeFormat("iso", zone)
