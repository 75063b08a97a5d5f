"""Items that the caller leaves out, for all users or for one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.core.errors import DataError
from recsys.serving.pipeline import Restriction
from recsys.serving.stages.given import GivenItems
from tests.serving.corpus import index_of, step

NUMBER, TEXT = pl.Int64(), pl.String()


def never(restriction: Restriction) -> list[list[int]]:
    """Per user the slots he cannot get."""
    everyone = np.flatnonzero(~restriction.eligible)
    return [sorted({*everyone.tolist(), *one.tolist()}) for one in restriction.exclude]


def test_items_without_users_are_left_out_for_all() -> None:
    index = index_of([10, 11, 12, 13])
    stage = GivenItems(pl.DataFrame({"item_id": [13, 11, 11, 99, 98]}), index, NUMBER)
    assert stage.unknown == 2
    assert never(stage.restrict(step([1, 0]))) == [[1, 3], [1, 3]]
    assert never(stage.restrict(step([]))) == []


def test_items_with_users_are_left_out_for_them_alone() -> None:
    index = index_of([10, 11, 12, 13])
    table = pl.DataFrame({"user_id": [101, 101, 7, 102, 101], "item_id": [13, 11, 10, 99, 13]})
    stage = GivenItems(table, index, NUMBER)
    assert stage.unknown == 1
    assert never(stage.restrict(step([1, 2, 1]))) == [[1, 3], [], [1, 3]]
    not_in_the_log = step([0], raw=pl.Series([7]))
    assert never(stage.restrict(not_in_the_log)) == [[0]]


@pytest.mark.parametrize("named", [[7, 8], ["7", "8"], [7.0, 8.0], ["7.0", "8"]])
@pytest.mark.parametrize("asked", [[8, 9], ["8", "9"], [8.0, 9.0]])
def test_a_user_of_a_log_of_numbers_may_be_written_in_several_ways(
    named: list, asked: list
) -> None:
    table = pl.DataFrame({"user_id": named, "item_id": ["10", "11.0"]})
    stage = GivenItems(table, index_of([10, 11]), NUMBER)
    assert never(stage.restrict(step([0, 0], raw=pl.Series(asked)))) == [[1], []]


def test_ids_may_be_text() -> None:
    table = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"]})
    users = step([1, 2, 0], raw=pl.Series(["b", "c", "a"]))
    for user_ids in (TEXT, NUMBER):  # a log of numbers may be asked for users it cannot have
        stage = GivenItems(table, index_of(["x", "y"]), user_ids)
        assert never(stage.restrict(users)) == [[1], [], [0]]


def test_items_that_were_replaced_or_removed_are_left_out_too() -> None:
    index = index_of([10, 11, 12])
    index.remove(pl.Series([10]))
    index.add(pl.DataFrame({"post_id": [11]}), np.ones((1, 8)))
    stage = GivenItems(pl.DataFrame({"item_id": [10, 11]}), index, NUMBER)
    assert stage.unknown == 1 and never(stage.restrict(step([1]))) == [[3]]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"post_id": [1]}, r"have no column item_id \(they have post_id\)"),
        ({"item_id": ["a", "b"]}, "column item_id: expected a whole number, found String values"),
        ({"item_id": [[1]]}, "column item_id: expected a whole number, found List"),
        ({"user_id": [[1]], "item_id": [1]}, r"column user_id: expected .* found List\(Int64\)"),
        ({"user_id": [1, None], "item_id": [1, 2]}, "column user_id: 1 of 2 rows name no user"),
    ],
)
def test_what_names_nothing_is_refused(table: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        GivenItems(pl.DataFrame(table), index_of([1, 2]), NUMBER)
