from __future__ import annotations

import polars as pl
import pytest

from recsys.data.infer.meanings import first_of, meanings_of, means_itself


def meant(counts: dict[str, int], first: str | None = None) -> dict[str, str]:
    return {one.name: one.meaning for one in meanings_of(counts, first)}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("VIEW", "impression"),
        ("page_view", "impression"),
        ("Ansicht", "impression"),
        ("clk", "click"),
        ("clicks", "click"),
        ("like", "liked"),
        ("share", "reshare"),
        ("bookmark", "positive"),
        ("AddToCart", "positive"),
        ("orders", "positive"),
        ("remove_from_cart", "negative"),
        ("dislike", "negative"),
        ("complained", "negative"),
        ("complaint", "negative"),
        ("returned", "negative"),
        ("refunds", "negative"),
        ("canceled", "negative"),
        ("skip", "skip"),
        ("heartbeat", "ignore"),
    ],
)
def test_names_that_say_what_they_mean(name: str, meaning: str) -> None:
    assert meant({"click": 5, name: 3})[name] == meaning


def test_a_log_of_views_alone_has_them_as_what_is_learned() -> None:
    assert meant({"view": 9}) == {"view": "click"}
    assert meant({"view": 9, "ping": 3}) == {"view": "click", "ping": "ignore"}


def test_codes_are_guessed_by_how_they_come() -> None:
    assert meant({"1": 90, "2": 9}, first="1") == {"1": "impression", "2": "positive"}
    assert meant({"1": 90, "2": 9}) == {"1": "positive", "2": "positive"}
    assert meant({"1": 90, "2": 9}, first="2") == {"1": "positive", "2": "positive"}
    assert "guess" in meanings_of({"1": 90}, None)[0].why


def test_the_commonest_comes_first() -> None:
    found = meanings_of({"click": 1, "impression": 7}, None)
    assert [(one.name, one.rows) for one in found] == [("impression", 7), ("click", 1)]
    assert all(map(means_itself, found))


def test_the_action_that_others_follow() -> None:
    pairs = [(user, item) for user in range(5) for item in range(4)]
    rows = [(*pair, name) for pair in pairs for name in ("1", "3")]
    frame = pl.DataFrame(rows, schema=["user", "item", "action"], orient="row")
    assert first_of(frame) == "1"
    assert first_of(frame.filter(pl.col("action") == "1")) is None
    assert first_of(frame.head(4)) is None
