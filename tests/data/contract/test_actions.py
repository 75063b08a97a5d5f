from __future__ import annotations

from collections import Counter

import polars as pl
import pytest

from recsys.core.errors import ConfigError
from recsys.data.contract.actions import ActionNames, ActionTypes, add_unknown, unknown_text
from recsys.data.contract.schema import ACTION_TYPES


def applied(names: ActionNames, values: list[str | None]) -> list[tuple[str, str | None]]:
    action, ignored = names.apply("a")
    frame = pl.DataFrame({"a": pl.Series(values, dtype=pl.String)})
    return frame.select(action, ignored.alias("ignored")).rows()


def test_names_mean_known_types_own_actions_or_nothing() -> None:
    meanings = {
        "view": "impression",
        "like": "liked",
        "thumb": "liked",  # two names of one type
        "bookmark": "positive",
        "abuse": "negative",
        "heartbeat": "ignore",
        "save": "click",  # a known name may mean another one
    }
    names = ActionNames(meanings)
    values = ["view", "like", "thumb", "liked", "bookmark", "abuse", "save", None, "what"]
    assert applied(names, values) == [
        ("impression", None),
        ("liked", None),
        ("liked", None),
        ("liked", None),
        ("bookmark", None),
        ("abuse", None),
        ("click", None),
        ("impression", None),
        ("what", None),
    ]
    assert applied(names, ["heartbeat"])[0][1] == "ignored action: heartbeat"
    types = names.types
    assert types.names == (*ACTION_TYPES, "bookmark", "abuse")
    assert types.own == ("bookmark", "abuse")
    assert "bookmark" in types.positive
    assert "abuse" in types.explicit
    assert "abuse" not in types.positive
    assert types.codes(["abuse", "impression"]) == [0, len(ACTION_TYPES) + 1]


def test_known_types_stay_as_they_are() -> None:
    assert applied(ActionNames({}), [*ACTION_TYPES]) == [(name, None) for name in ACTION_TYPES]
    assert ActionNames({}).types == ActionTypes()
    # its own sign says nothing new
    assert ActionNames({"click": "positive", "hide": "negative"}).types == ActionTypes()


def test_the_default_is_as_if_it_stood_there() -> None:
    assert ActionNames({}).default_type == "impression"
    assert applied(ActionNames({}, "click"), [None, "hide"]) == [("click", None), ("hide", None)]
    rated = ActionNames({"rating": "positive"}, "rating")
    assert rated.default_type == "rating"
    assert applied(rated, [None]) == [("rating", None)]
    assert ActionNames({"noise": "ignore"}, "noise").default_type is None


@pytest.mark.parametrize(
    ("meanings", "sentence"),
    [
        ({"like": "likes"}, r"likes is no known action type.*of its own or leave its rows out\.$"),
        ({"liked": "like"}, r"did you mean options\.actions\.like=liked\?"),
        ({"hide": "positive"}, "hide is a known action type and not positive"),
        ({"impression": "positive"}, "impression is a known action type and not positive"),
        ({"a/b": "positive"}, "'a/b' cannot be the name of an action of your own"),
        ({"watch_time": "positive"}, "'watch_time' cannot be"),
        ({f"a{n}": "positive" for n in range(115)}, "115 actions of your own, at most 114"),
    ],
)
def test_what_cannot_be_is_a_sentence(meanings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        _ = ActionNames(meanings).types


def test_an_unknown_default_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"options\.actions\.rated=positive"):
        ActionNames({}, "rated")


def test_a_list_of_actions_grows_at_its_end() -> None:
    before = ActionNames({"cart": "positive"}).types
    after = ActionNames({"abuse": "negative", "cart": "positive"}).types
    assert before.extended(after).own == ("cart", "abuse")
    assert before.extended(after).negative == after.negative
    assert before.extended(ActionTypes()) == before
    with pytest.raises(ConfigError, match=r"cart is negative, but .* prepared with positive"):
        before.extended(ActionNames({"cart": "negative"}).types)


def test_unknown_names_are_named_ten_at_most() -> None:
    counted: Counter[str] = Counter()
    add_unknown(counted, pl.Series(["view"] * 3 + ["like"]))
    assert unknown_text(counted).startswith(
        "Unknown names of actions: view (3), like (1). Say what each means: options.actions.view="
    )
    add_unknown(counted, pl.Series([f"n{number}" for number in range(11)]))
    assert " and 3 more. Say" in unknown_text(counted)
    add_unknown(counted, pl.Series([f"m{number}" for number in range(2_000)]))
    assert " and 990 or more more. Say" in unknown_text(counted)
