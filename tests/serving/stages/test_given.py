"""Items that the caller leaves out, for all users or for one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.serving.pipeline import Restriction
from recsys.serving.stages.given import GivenItems, OnlyItems
from tests.serving.corpus import index_of, step


def never(restriction: Restriction) -> list[list[int]]:
    """Per user the slots he cannot get."""
    everyone = np.flatnonzero(~restriction.eligible)
    return [sorted({*everyone.tolist(), *one.tolist()}) for one in restriction.exclude]


def test_items_without_users_are_left_out_for_all() -> None:
    index = index_of([10, 11, 12, 13])
    stage = GivenItems(pl.DataFrame({"item_id": [13, 11, 11, 99, 98]}), index)
    assert stage.unknown == 2
    assert never(stage.restrict(step([1, 0]))) == [[1, 3], [1, 3]]
    assert never(stage.restrict(step([]))) == []


def test_items_with_users_are_left_out_for_them_alone() -> None:
    index = index_of([10, 11, 12, 13])
    table = pl.DataFrame({"user_id": [101, 101, 7, 102, 101], "item_id": [13, 11, 10, 99, 13]})
    stage = GivenItems(table, index)
    assert stage.unknown == 1
    assert never(stage.restrict(step([1, 2, 1]))) == [[1, 3], [], [1, 3]]
    not_in_the_log = step([0], raw=pl.Series([7]))
    assert never(stage.restrict(not_in_the_log)) == [[0]]


@pytest.mark.parametrize("named", [[7, 8], ["7", "8"]])
@pytest.mark.parametrize("asked", [[8, 9], ["8", "9"], ["08", "8"]])
def test_users_are_matched_as_they_are_written(named: list, asked: list) -> None:
    table = pl.DataFrame({"user_id": named, "item_id": ["010", "11"]})
    stage = GivenItems(table, index_of([10, 11]))
    assert stage.unknown == 1
    found = [[1] if str(user) == "8" else [] for user in asked]
    assert never(stage.restrict(step([0, 0], raw=pl.Series(asked)))) == found


def test_ids_may_be_text() -> None:
    table = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"]})
    users = step([1, 2, 0], raw=pl.Series(["b", "c", "a"]))
    stage = GivenItems(table, index_of(["x", "y"]))
    assert never(stage.restrict(users)) == [[1], [], [0]]


def test_items_that_were_replaced_or_removed_are_left_out_too() -> None:
    index = index_of([10, 11, 12])
    index.remove(pl.Series([10]))
    index.add(pl.DataFrame({"post_id": [11]}), np.ones((1, 8)))
    stage = GivenItems(pl.DataFrame({"item_id": [10, 11]}), index)
    assert stage.unknown == 1 and never(stage.restrict(step([1]))) == [[3]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"post_id": [1]}, r"items of exclude= have no column item_id \(they have post_id\)"),
        ({"item_id": ["a", "b"]}, "ids such as 'a', those of the index are whole numbers"),
        ({"item_id": [[1]]}, "column item_id: ids are whole numbers or text, found List"),
        ({"item_id": [7.0]}, "column item_id: ids are whole numbers or text, found Float64"),
        ({"user_id": [[1]], "item_id": [1]}, r"column user_id: ids are .* found List\(Int64\)"),
        ({"user_id": [1, None], "item_id": [1, 2]}, "column user_id: 1 of 2 rows name no user"),
    ],
)
def test_what_names_nothing_is_refused(table: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GivenItems(pl.DataFrame(table), index_of([1, 2]))


def test_only_the_named_items_may_be_found() -> None:
    index = index_of([10, 11, 12, 13])
    index.remove(pl.Series([12]))
    stage = OnlyItems(pl.DataFrame({"item_id": ["11", "12", "13", "99"]}), index)
    assert stage.unknown == 2
    assert np.flatnonzero(stage.restrict(step([1])).eligible).tolist() == [1, 3]
    with pytest.raises(DataError, match=r"None of the 2 items of only= .*the first is '98'"):
        OnlyItems(pl.DataFrame({"item_id": ["98", "99"]}), index)
