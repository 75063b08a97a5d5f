"""Ids keep their spelling: over chunks and files, and when they are matched with others."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.contract.ids import IdType, as_ids, checked_ids, joined_ids, read_ids
from recsys.data.contract.log import LogReader, split_rows

DAY = 1_700_000_000_000
NUMBERS = (pl.Int64(), pl.UInt64())

LARGE = st.integers(-(2**63), 2**64 - 1)
WRITTEN = st.one_of(
    st.integers(0, 12).map(str),
    LARGE.map(str),
    st.sampled_from(
        ["007", "07", "+7", "-0", "00", "7.0", "1e1", " 7", "7 ", "\u0667", "0x7", "a7"]
    ),
    st.sampled_from([str(2**63), str(2**63 - 1), str(2**64), str(-(2**63) - 1), "-7"]),
)
IDS = st.lists(st.one_of(st.none(), WRITTEN), max_size=8)


def as_text(ids: pl.Series) -> list[str | None]:
    return ids.cast(pl.String).to_list()


@given(st.lists(IDS, min_size=1, max_size=4))
def test_spelt_out_ids_come_back_as_they_were_written(chunks: list[list[str | None]]) -> None:
    kind = IdType()
    columns = [pl.Series("id", chunk, pl.String) for chunk in chunks]
    for column in columns:
        kind.add(column, spelt_out=True)
    assert [as_text(as_ids(column, kind.dtype)) for column in columns] == chunks
    numbers = [one for chunk in chunks for one in chunk if one is not None]
    fits = [
        all(str(int(one)) == one for one in numbers)
        and all(low <= int(one) <= high for one in numbers)
        for low, high in ((-(2**63), 2**63 - 1), (0, 2**64 - 1))
        if all(one.strip("-").isascii() and one.strip("-").isdecimal() for one in numbers)
    ]
    expected = [dtype for dtype, fit in zip(NUMBERS, fits, strict=False) if fit]
    assert kind.dtype == (expected or [pl.String()])[0]


@given(IDS, st.lists(LARGE, max_size=8), st.sampled_from([*NUMBERS, pl.String()]))
def test_ids_match_those_of_another_type_that_are_written_alike(
    named: list[str | None], numbers: list[int], dtype: pl.DataType
) -> None:
    for ids in (
        pl.Series("id", named, pl.String),
        joined_ids([checked_ids("here", pl.Series("id", numbers, pl.Int128))]),
    ):
        matched = as_ids(ids, dtype)
        assert matched.dtype == dtype and matched.name == "id"
        for given_id, found in zip(as_text(ids), as_text(matched), strict=True):
            assert found in (None, given_id)
            assert found is not None or given_id is None or not _holds(dtype, given_id)


def _holds(dtype: pl.DataType, written: str) -> bool:
    if dtype == pl.String():
        return True
    low, high = (-(2**63), 2**63 - 1) if dtype == pl.Int64() else (0, 2**64 - 1)
    digits = written.removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and str(int(written)) == written
    return is_number and low <= int(written) <= high


@pytest.mark.parametrize(
    "values",
    [
        pl.Series("user_id", [1.0, 2.0]),
        pl.Series("user_id", [True, False]),
        pl.Series("user_id", [b"a", b"b"]),
        pl.Series("user_id", [[1], [2]]),
        pl.Series("user_id", [1, 2]).cast(pl.Decimal(10, 0)),
        pl.Series("user_id", [1, 2]).cast(pl.Date),
    ],
    ids=lambda values: str(values.dtype),
)
def test_what_is_neither_a_whole_number_nor_text_is_a_sentence(
    tmp_path: Path, values: pl.Series
) -> None:
    sentence = r"column user_id: ids are whole numbers or text, found .*; convert"
    with pytest.raises(DataError, match=f"^here, {sentence}"):
        checked_ids("here", values)
    path = tmp_path / "log.parquet"
    pl.DataFrame([values, pl.Series("item_id", [1, 2]), pl.Series("timestamp", [DAY] * 2)]).pipe(
        lambda frame: frame.write_parquet(path)
    )
    with pytest.raises(DataError, match=rf"log\.parquet, {sentence}"):
        list(LogReader(path))


@st.composite
def files(draw: st.DrawFn) -> tuple[list[tuple[str, pl.Series]], list[str]]:
    """Columns of ids as files hold them, and their ids as text, in order."""
    parts: list[tuple[str, pl.Series]] = []
    kinds = {
        "int32": (pl.Int32, st.integers(-3, 3)),
        "int64": (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
        "uint64": (pl.UInt64, st.integers(0, 2**64 - 1)),
        "text": (pl.String, st.sampled_from(["7", "007", "a", "8"])),
        "category": (pl.Categorical, st.sampled_from(["7", "007", "a"])),
        "csv": (pl.String, WRITTEN),
        "small csv": (pl.String, st.integers(0, 9).map(str)),
    }
    for kind in draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4)):
        dtype, values = kinds[kind]
        ids = draw(st.lists(values, min_size=1, max_size=4))
        parts.append(("csv" if "csv" in kind else "parquet", pl.Series("user_id", ids, dtype)))
    return parts, [one for _, part in parts for one in part.cast(pl.String)]


@settings(max_examples=60, deadline=None)
@given(files(), st.integers(1, 3))
def test_ids_of_several_files_are_one_type_and_stay_as_they_are_written(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[list[tuple[str, pl.Series]], list[str]],
    chunk_rows: int,
) -> None:
    parts, expected = drawn
    folder = tmp_path_factory.mktemp("log")
    for number, (form, ids) in enumerate(parts):
        frame = ids.to_frame().with_columns(item_id=pl.lit(1), timestamp=pl.lit(DAY))
        path = folder / f"{number}.{form}"
        frame.write_csv(path, quote_style="never") if form == "csv" else frame.write_parquet(path)
    chunks = list(LogReader(folder, chunk_rows=chunk_rows))
    assert len({chunk.schema["user_id"] for chunk in chunks}) == 1
    assert as_text(pl.concat(chunks)["user_id"]) == expected


def test_a_column_that_a_file_lacks_is_of_the_type_of_the_others(tmp_path: Path) -> None:
    day = pl.DataFrame({"user_id": [1, 2], "item_id": [5, 6], "timestamp": [DAY, DAY + 1]})
    day.write_parquet(tmp_path / "1.parquet")
    day.with_columns(author_id=pl.lit("anna")).write_parquet(tmp_path / "2.parquet")
    day.with_columns(author_id=pl.lit(7)).write_csv(tmp_path / "3.csv")
    good, bad = split_rows(pl.concat(list(LogReader(tmp_path))))
    assert bad.is_empty()
    assert good["author_id"].to_list() == [None, None, "anna", "anna", "7", "7"]


def test_a_file_of_ids_may_change_its_mind_between_chunks(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user_id\n7\n007\n18446744073709551615\n")
    assert read_ids(path, "user_id").to_list() == ["7", "007", "18446744073709551615"]
    path.write_text("user_id\n")
    assert read_ids(path, "user_id").to_list() == []
    parts = [
        pl.Series([1, -2]),
        pl.Series([2**63], dtype=pl.UInt64),
        pl.Series([None], dtype=pl.String),
    ]
    assert joined_ids(parts[:1] + parts[2:]).to_list() == [1, -2, None]
    assert joined_ids(parts).to_list() == ["1", "-2", "9223372036854775808", None]
