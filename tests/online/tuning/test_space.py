"""Numbers of a funnel by their names, and what they are changed to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.core.errors import ConfigError
from recsys.online.tuning.config import Limits, Range, TuningConfig
from recsys.online.tuning.mapped import drawn
from recsys.online.tuning.space import Space
from recsys.serving.funnel.config import FreshConfig, FunnelConfig, SourcesConfig, ValueConfig
from recsys.serving.funnel.value import parse_value

WEIGHTS = st.floats(0, 100)


def test_numbers_are_where_their_names_say(funnel: FunnelConfig) -> None:
    names = ("p(liked)", "log1p(watch_time)", "p(see_less)", "sources.fresh.weight", "limit")
    names += ("rerank.apart[0].places", "rerank.at_most[0].share", "sources.fresh.quota")
    space = Space(funnel, {name: Range(0.25, 2000) for name in names[:4]})
    assert space.now == dict(zip(names, (1.0, 0.5, 8.0, 0.5), strict=False))
    assert not any(one.whole for one in space.parameters)
    space = Space(funnel, {name: Range(2, 2000) for name in ("limit", names[5], names[7])})
    assert list(space.now.values()) == [1000, 4, 30]
    assert all(one.whole for one in space.parameters)
    changed = space.funnel_with({"rerank.apart[0].places": 6, "limit": 70})
    assert changed == replace(
        funnel,
        limit=70,
        rerank=replace(funnel.rerank, apart=[replace(funnel.rerank.apart[0], places=6)]),
    )


@given(liked=WEIGHTS, watched=WEIGHTS, see_less=WEIGHTS)
def test_an_expression_has_the_weights_that_it_is_given(
    liked: float, watched: float, see_less: float
) -> None:
    text = "-2 * p(liked) + max(1.0 * log1p(watch_time), 0.0) - 8 * p( see_less ) + 3 * 2"
    space = Space(
        FunnelConfig(sources=SourcesConfig(fresh=FreshConfig()), value=ValueConfig(text)),
        {name: Range(0, 100) for name in ("p(liked)", "log1p(watch_time)", "p(see_less)")},
    )
    values = {"p(liked)": liked, "log1p(watch_time)": watched, "p(see_less)": see_less}
    model = parse_value(
        space.funnel_with(values).value.expression, ("liked", "see_less"), ("watch_time",)
    )
    predictions = np.array([[0.5, 0.25, np.e - 1]])
    expected = -liked * 0.5 + watched - see_less * 0.25 + 6
    assert model(predictions)[0] == pytest.approx(expected)


def test_a_term_that_stands_twice_has_no_number(funnel: FunnelConfig) -> None:
    twice = replace(funnel, value=ValueConfig("1 * p(liked) + 2 * p(liked) * p(save)"))
    with pytest.raises(ConfigError, match=r"no number p\(liked\)"):
        Space(twice, {"p(liked)": Range(0, 3)})


@pytest.mark.parametrize(
    ("name", "ends", "sentence"),
    [
        ("p(likd)", (0, 2), r"did you mean p\(liked\)"),
        ("sources.fresh.wieght", (0, 2), "did you mean sources.fresh.weight"),
        ("sources.trending.weight", (0, 2), "no number"),
        ("value.expression", (0, 2), "no number"),
        ("filters.own_region", (0, 1), "no number"),
        ("p(liked)", (2, 3), "is 1 in the funnel as it is"),
        ("rerank.at_most[0].share", (0.1, 2), "share is 2.0, it must be a finite number above 0"),
        ("sources.fresh.quota", (0, 40), "quota is 0"),
        ("sources.fresh.quota", (1.5, 40), "is a whole number"),
    ],
)
def test_what_cannot_be_tuned_is_a_sentence(
    funnel: FunnelConfig, name: str, ends: tuple[float, float], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Space(funnel, {name: Range(*ends)})


def test_settings_without_room_or_limit_are_sentences() -> None:
    some = {"p(liked)": Range(0, 1)}
    with pytest.raises(ConfigError, match="low must be below high"):
        TuningConfig(parameters={"p(liked)": Range(2, 1)})
    with pytest.raises(ConfigError, match="nothing is to be tuned"):
        TuningConfig()
    with pytest.raises(ConfigError, match="session_depth has no limit"):
        TuningConfig(parameters=some, constraints={"session_depth": Limits()})


def test_only_the_value_model_and_the_rules_are_replayed(make_space: Callable[..., Space]) -> None:
    make_space(liked=(0, 2), places=(2, 8)).check_replayed()
    with pytest.raises(ConfigError, match=r"way=offline: sources\.fresh\.weight"):
        make_space(**{"sources.fresh.weight": (0, 2)}).check_replayed()


def test_draws_fill_the_ranges_and_do_not_follow_from_how_many(
    make_space: Callable[..., Space],
) -> None:
    space = make_space(liked=(0, 4), places=(2, 5))
    sixteen = drawn(space, 16, seed=3)
    quarters = {int(one["p(liked)"]) for one in sixteen[:4]}
    assert quarters == {0, 1, 2, 3}
    places = [one["rerank.apart[0].places"] for one in sixteen]
    assert sorted(places) == [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert [drawn(space, number + 1, seed=3)[number] for number in range(16)] == sixteen
    assert drawn(space, 4, seed=4) != sixteen[:4]
