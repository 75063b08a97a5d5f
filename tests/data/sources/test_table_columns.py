"""Columns of tables as people write them, by hand-made values."""

from __future__ import annotations

import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.data.sources.table_columns import Unknown, as_categories, as_lists, as_numbers


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("['Action, Adventure', 'x']", ["Action, Adventure", "x"]),
        ('["it\'s", "a|b", "a|b"]', ["it's", "a|b"]),
        (" [1, 2.5, null, NaN] ", ["1", "2.5"]),
        ("[None, True]", ["True"]),
        ("['a'\n 'b c']", ["a", "b c"]),
        ("[x, 'y']", ["x", "y"]),
        ("[x|y]", ["x", "y"]),
        ("[]", []),
        (r"['a\d']", [r"a\d"]),
        ("[Rec]|Horror [x]", ["[Rec]", "Horror [x]"]),
        ("(500) Days|Drama (x)", ["(500) Days", "Drama (x)"]),
        ("(a|b)", ["(a", "b)"]),
        ("{'a': 1}", ["{'a': 1}"]),
        ("a | b|", ["a", "b"]),
        ("[" * 100_000 + "]", ["[" * 100_000 + "]"]),
    ],
)
def test_text_is_a_list_as_it_is_written(text: str, values: list[str]) -> None:
    found = as_lists("items.csv", pl.Series("tags", [text, None, "q", " "]))
    assert found.to_list() == [values, None, ["q"], None]
    assert found.name == "tags"


@pytest.mark.parametrize("text", ["[{'id': 1}]", '[{"id": null}, "a"]', "[[1], [2]]"])
def test_lists_of_something_else_than_names_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="column tags: expected lists of names, found"):
        as_lists("items.csv", pl.Series("tags", ["a|b", text]))


def test_categories_of_csv_are_those_of_parquet() -> None:
    numbers = [3.0, 3.5, -0.0, float("nan"), float("inf"), -float("inf"), None, -7.0]
    known = ["3", "3.5", "0", None, None, None, None, "-7"]
    assert as_categories("t", pl.Series("c", numbers)).to_list() == known
    text = ["3.0", "3.5", "-0.0", "NaN", "inf", "-Infinity", "", "-7"]
    assert as_categories("t", pl.Series("c", text), spelt_out=True).to_list() == known
    names = ["007", "007.0", "1.10", "Nancy", "info", "3"]
    assert as_categories("t", pl.Series("c", names), spelt_out=True).to_list() == names
    assert as_categories("t", pl.Series("c", text)).to_list()[:4] == ["3.0", "3.5", "-0.0", "NaN"]


def test_numbers_of_csv_may_be_true_and_false_and_stand_between_blanks() -> None:
    unknown = Unknown()
    text = pl.Series("new", ["true", "False", " 2.5 ", "TRUE ", "", None, "nan", "\t-1"])
    found = as_numbers("t", text, unknown)
    assert found.to_list() == [1, 0, 2.5, 1, None, None, None, -1]
    assert unknown.sentences("t") == []
    assert found.name == "new"
    more = as_numbers("t", pl.Series("new", ["1", "2", "maybe"]), unknown)
    assert more.to_list() == [1, 2, None]
    assert "1 values that are no numbers, such as 'maybe'" in unknown.sentences("t")[0]
