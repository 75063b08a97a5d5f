"""The language of value models: what it computes, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.serving.funnel.value import parse_value

BINARY, REGRESSION = ("like", "see_less"), ("watch_time",)


def value_of(
    text: str, like: float = 0.5, see_less: float = 0.1, watch_time: float = 20.0
) -> float:
    model = parse_value(text, BINARY, REGRESSION)
    return float(model(np.array([[like, see_less, watch_time]]))[0])


def test_the_weighted_sum_of_the_paper() -> None:
    text = "1.0 * p(like) + 0.3 * log1p(watch_time) - 8 * p(see_less)"
    expected = 0.5 + 0.3 * math.log1p(20.0) - 8 * 0.1
    assert value_of(text) == pytest.approx(expected, rel=1e-15)
    assert parse_value(text, BINARY, REGRESSION).tasks == ("like", "see_less", "watch_time")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-p(like) + +2", 1.5),
        ("(1 + p(like)) * 2 / 4", 0.75),
        ("min(p(like), p(see_less)) + max(p(like), 0.9)", 1.0),
        ("clip(watch_time, 0, 10)", 10.0),
        ("clip(-watch_time, -1.5, 10)", -1.5),
        ("sqrt(watch_time + 5)", 5.0),
        ("3", 3.0),
    ],
)
def test_each_operation(text: str, expected: float) -> None:
    assert value_of(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["1 / (p(like) - 0.5)", "sqrt(0 - watch_time)", "0 / (p(like) - 0.5)"]
)
def test_what_is_no_number_is_nan(text: str) -> None:
    assert math.isnan(value_of(text))
    assert math.isnan(value_of("p(like)", like=math.nan))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("p(lik)", r"did you mean like\?"),
        ("p(watch_time)", "write watch_time"),
        ("like + 1", r"write p\(like\)"),
        ("log(watch_time)", r"no function log \(did you mean log1p\?\)"),
        ("clip(watch_time, 1)", "takes 3 arguments and is given 2"),
        ("p('like')", "takes the name of one task"),
        ("p(like", "cannot be read"),
        ("", "cannot be read"),
        ("p(like) ** 1000", "no part of this language"),
        ("__import__('os').system('true')", "no part of this language"),
        ("(lambda: 1)()", "no part of this language"),
        ("watch_time.real", "no part of this language"),
        ("[1][0]", "no part of this language"),
        ("True", "no part of this language"),
        ("p(like) if 1 else 2", "no part of this language"),
        ("min(watch_time, b=1)", "no part of this language"),
        ("1e999", "too large"),
        ("1" + "0" * 400, "too large"),
        ("-" * 100 + "1", "nested deeper"),
        ("(" * 900 + "1" + ")" * 900, "cannot be read"),
        ("1 + " * 1_000 + "1", "it may have 2,000"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_value(text, BINARY, REGRESSION)


@given(st.text(max_size=60))
def test_any_text_is_a_value_model_or_a_sentence(text: str) -> None:
    try:
        model = parse_value(text, BINARY, REGRESSION)
    except ConfigError:
        return
    assert model(np.array([[0.5, 0.1, 20.0]])).shape == (1,)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=70))
def test_a_candidate_alone_has_the_same_bits_as_among_others(shares: list[float]) -> None:
    rows = np.array([[one, 1 - one, 100 * one] for one in shares], np.float32)
    model = parse_value(
        "1.3 * p(like) + 0.3 * log1p(watch_time) / (1 + sqrt(p(see_less)))", BINARY, REGRESSION
    )
    together = model(rows)
    for number in range(len(rows)):
        assert model(rows[number : number + 1]).tobytes() == together[number : number + 1].tobytes()
