"""Items that the caller chooses by what is known of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.core.errors import ConfigError
from recsys.serving.item_facts import ItemFacts
from recsys.serving.stages.where import WhereItems, parse_where
from tests.serving.corpus import index_of, step


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ItemFacts:
    """Of four items whose table calls the title ``name`` and the topic ``kind``."""
    folder = tmp_path_factory.mktemp("where")
    pl.DataFrame(
        {
            "product": ["a", "b", "c", "d"],
            "name": ["Red shoe", "Blue shoe", "Hat", None],
            "kind": ["shoes", "shoes", "hats", None],
            "price": [10.0, 20.0, 30.0, None],
        }
    ).write_parquet(folder / "items.parquet")
    number = np.arange(120)
    log = pl.DataFrame(
        {
            "user_id": number % 6,
            "item_id": pl.Series(list("abcd"))[number % 4],
            "timestamp": 1_714_521_600_000 + number * 21_600_000,
            "action_type": ["click", "impression"] * 60,
        }
    )
    items = {"path": str(folder / "items.parquet"), "id": "product", "title": "name"}
    items |= {"topic": "kind", "dense": ["price"]}
    dataset = recsys.prepare(log, folder / "prepared", items=items)
    return ItemFacts(dataset, index_of(["a", "b", "c", "d"]))


def chosen(facts: ItemFacts, where: str) -> list[str]:
    index = index_of(["a", "b", "c", "d"])
    stage = WhereItems(parse_where(where), facts, index)
    return ["abcd"[slot] for slot in np.flatnonzero(stage.restrict(step([1])).eligible)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("kind=shoes AND price<15", ["a"]),
        ("topic_id=shoes and price>=10 And name!=Red shoe", ["b"]),
        ("name=Hat", ["c"]),
        ("title=Hat|Blue shoe", ["b", "c"]),
    ],
)
def test_columns_may_be_called_as_in_the_table(
    facts: ItemFacts, where: str, expected: list[str]
) -> None:
    assert chosen(facts, where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("kind=shoe", "no item is so; the nearest is kind=shoes"),
        ("kind=SHOES", "the nearest is kind=shoes"),
        ("kind=xyz", "values of kind are shoes, hats"),
        ("price>99", "the values of price are from 10.0 to 30.0"),
        ("kind=hats and price<15", "for each of the conditions, but none for all"),
        ("price<nan", "holds numbers; compare it with one"),
        ("pric<15", "no column pric .*; did you mean price?"),
        ("nam=Hat", "no column nam .*did you mean name"),
    ],
)
def test_what_no_item_fulfils_is_refused(facts: ItemFacts, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        chosen(facts, where)
