from __future__ import annotations

from typing import Any

import polars as pl

from recsys.data.contract.log_parts import log_parts
from recsys.data.infer.hash_sample import HashSample, hashes_of
from recsys.data.infer.names import Role
from recsys.data.infer.profile import profiles_of
from recsys.data.infer.tables import Match, columns_of, matched

ITEMS = 60


def keys(of_items: bool = True, taken: tuple[str, ...] = (), **columns: Any) -> dict[str, str]:
    found = columns_of(list(profiles_of(pl.DataFrame(columns)).values()), of_items, taken)
    return {one.column: one.key or "-" for one in found}


def of_each(make: Any) -> list[Any]:
    return [make(item) for item in range(ITEMS)]


def test_what_the_columns_of_items_are_taken_for() -> None:
    assert keys(
        title=of_each(lambda item: f"The story of {item}"),
        description=of_each(lambda item: f"A long text that says what {item} is about"),
        brand=of_each(lambda item: f"b{item % 5}"),
        category=of_each(lambda item: f"c{item % 3}"),
        colour=of_each(lambda item: f"f{item % 7}"),
        price=of_each(lambda item: item + 0.5),
        pages=of_each(lambda item: 100 + item),
        kind_id=of_each(lambda item: item % 4),
        zip=of_each(lambda item: 10_000 + item // 2),
        tags=of_each(lambda item: f"x|t{item % 9}"),
        vector=of_each(lambda item: [0.5 * item] * 8),
        picture=of_each(lambda item: f"https://a.example/{item}.png"),
        released=of_each(lambda item: f"2024-05-{1 + item % 30:02d}"),
        sku=of_each(lambda item: f"s{item}"),
        shop=["one"] * ITEMS,
    ) == {
        "title": "title",
        "description": "texts",
        "brand": "author",
        "category": "topic",
        "colour": "categorical",
        "price": "dense",
        "pages": "dense",
        "kind_id": "categorical",
        "zip": "categorical",
        "tags": "lists",
        "vector": "embedding",
        "picture": "image",
        "released": "-",
        "sku": "-",
        "shop": "-",
    }


def test_what_the_columns_of_users_are_taken_for() -> None:
    assert keys(
        of_items=False,
        age=of_each(lambda user: 20 + user % 50),
        gender=of_each(lambda user: "mf"[user % 2]),
        interests=of_each(lambda user: ["a", "b"][: user % 3]),
        vip=of_each(lambda user: user % 2 == 0),
        name=of_each(lambda user: f"Some Body {user}"),
    ) == {
        "age": "dense",
        "gender": "categorical",
        "interests": "lists",
        "vip": "categorical",
        "name": "-",
    }


def test_what_the_log_gives_is_not_taken_twice() -> None:
    columns = {"brand": of_each(lambda item: f"b{item % 5}")}
    assert keys(**columns) == {"brand": "author"}
    assert keys(taken=("author",), **columns) == {"brand": "categorical"}


def test_a_column_called_title_is_the_title_though_many_items_share_one() -> None:
    title = [f"a lamp of kind {item % 25}" for item in range(200)]
    description = [f"words about the thing number {item} of many" for item in range(200)]
    found = keys(title=title, description=description)
    assert found == {"title": "title", "description": "texts"}


def test_the_shortest_text_is_the_title_where_no_name_says_so() -> None:
    assert keys(
        one=of_each(lambda item: f"A text that goes on for long about {item}"),
        two=of_each(lambda item: f"Short words {item}"),
    ) == {"one": "texts", "two": "title"}


def match(log: list[Any], role: Role = Role.ITEM, **columns: Any) -> Match | None:
    ids, table = HashSample(), pl.DataFrame(columns)
    ids.add(hashes_of(pl.Series(log)))
    return matched(log_parts(table, 7), profiles_of(table), ids, role)


def test_the_ids_of_a_table_are_those_of_the_log() -> None:
    found = match(["a", "a", "b", "z"], item=["x", "y", "v"], code=["a", "b", "c"])
    assert found == Match("code", 2 / 3, 3 / 4)
    assert match([1, 2], id=["1", "2"], other=["2", "3"]) == Match("id", 1, 1)


def test_a_table_of_other_ids_is_matched_by_its_name() -> None:
    assert match(["a"], item_id=["A", "B"], shop=["x", "y"]) == Match("item_id", 0, 0)
    assert match(["a"], price=[0.5, 0.25]) is None
