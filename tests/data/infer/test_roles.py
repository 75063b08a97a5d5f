from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.infer.names import Role
from recsys.data.infer.profile import profiles_of
from recsys.data.infer.roles import dependents, flags_of, in_milliseconds, roles_of, unread

ROWS = 400
GENERATOR = np.random.default_rng(0)
USERS = GENERATOR.integers(1, 60, ROWS)
ITEMS = GENERATOR.integers(1, 90, ROWS)
SECONDS = 1_714_521_600 + 600 * np.arange(ROWS)


def roles(**columns: Any) -> dict[Role, str | None]:
    return {
        role: choice.column for role, choice in roles_of(profiles_of(pl.DataFrame(columns))).items()
    }


def test_columns_by_their_names() -> None:
    assert roles(
        brand=GENERATOR.choice(["a", "b"], ROWS),
        event=GENERATOR.choice(["view", "buy"], ROWS),
        itemid=ITEMS,
        stars=GENERATOR.integers(1, 6, ROWS),
        visitorid=USERS,
        ts=SECONDS,
        watch_seconds=GENERATOR.random(ROWS),
        tab=GENERATOR.integers(0, 3, ROWS),
        category=ITEMS % 4,
        remark=["a few words of no use"] * ROWS,
    ) == {
        Role.USER: "visitorid",
        Role.ITEM: "itemid",
        Role.TIMESTAMP: "ts",
        Role.ACTION: "event",
        Role.RATING: "stars",
        Role.DWELL_TIME: "watch_seconds",
        Role.AUTHOR: "brand",
        Role.TOPIC: "category",
        Role.SURFACE: "tab",
    }


def test_columns_by_their_values() -> None:
    found = roles(
        number=np.arange(ROWS),
        x=GENERATOR.choice(["Ansicht", "Kauf"], ROWS),
        when=SECONDS,
        b=USERS,
        a=ITEMS,
    )
    assert found == {
        Role.TIMESTAMP: "when",
        Role.ACTION: "x",
        Role.USER: "b",
        Role.ITEM: "a",
    }


def test_ids_with_a_bar_in_them_are_ids() -> None:
    users = [f"auth0|{user}" for user in USERS]
    genres = GENERATOR.choice(["a|b", "b", "c|a"], ROWS)
    assert roles(user=users, item=ITEMS, genre=genres) == {Role.USER: "user", Role.ITEM: "item"}


def test_equally_likely_columns_are_named() -> None:
    found = roles_of(profiles_of(pl.DataFrame({"x": USERS, "y": ITEMS, "z": ITEMS % 50})))
    assert found[Role.USER].column == "x"
    assert set(found[Role.USER].also) == {"y", "z"}
    assert found[Role.ITEM].column == "y"
    assert found[Role.ITEM].also == ("z",)


def test_where_no_column_is_likely_there_is_none() -> None:
    assert roles(a=GENERATOR.random(ROWS), b=["x"] * ROWS, c=np.arange(ROWS)) == {}


def test_values_overrule_names() -> None:
    found = roles(
        user_id=GENERATOR.random(ROWS),  # no ids
        member=USERS,
        item=ITEMS,
        time=np.arange(ROWS) % 30,  # no moments
        type=GENERATOR.choice(["film", "series"], ROWS),  # no actions
        rating=GENERATOR.random(ROWS),  # too many different ones
    )
    assert found == {Role.USER: "member", Role.ITEM: "item"}


def test_a_session_is_a_user_only_where_there_is_none() -> None:
    assert roles(session_id=USERS, item=ITEMS)[Role.USER] == "session_id"
    found = roles_of(profiles_of(pl.DataFrame({"session_id": USERS, "who": ITEMS, "user": USERS})))
    assert (found[Role.USER].column, found[Role.USER].also) == ("user", ())


def test_flags_of_what_came_of_an_impression() -> None:
    columns = {"user": USERS, "item": ITEMS, "is_click": USERS % 2, "like": USERS % 2 == 0}
    profiles = profiles_of(pl.DataFrame({**columns, "is_new": USERS % 2}))
    assert flags_of(profiles, roles_of(profiles)) == ["is_click", "like"]


def test_columns_that_say_the_same_of_an_item() -> None:
    log = pl.DataFrame({"item": ITEMS, "colour": ITEMS % 3, "price": GENERATOR.random(ROWS)})
    assert dependents(log, "item", ["colour", "price"]) == ["colour"]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("watch_time", [3.0, 20.0, 600.0], False),
        ("watch_time", [3_000, 20_000, 60_000], True),
        ("play_time_ms", [3, 4, 5], True),
    ],
)
def test_lengths_in_milliseconds(name: str, values: list[float], expected: bool) -> None:
    profile = profiles_of(pl.DataFrame({name: values}))[name]
    assert in_milliseconds(profile) is expected


def test_why_a_column_is_not_read() -> None:
    frame = pl.DataFrame({"no": [None, None], "same": ["a", "a"], "n": [1, 2], "x": [0.5, 0.1]})
    assert dict(unread(profiles_of(frame))) == {
        "no": "empty",
        "same": "the same in all rows",
        "n": "numbers the rows",
        "x": "numbers, 2 different",
    }
