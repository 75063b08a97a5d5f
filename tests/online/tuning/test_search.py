"""What is proposed next, where the optimum is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from recsys.online.tuning.bayesian import propose
from recsys.online.tuning.config import Limits, Range, TuningConfig
from recsys.online.tuning.mapped import OfflineMap, drawn, search
from recsys.online.tuning.space import Space
from recsys.online.tuning.trials import Trial, choose
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.value import parse_value

#: The goal is highest at p(liked) = 3, but harm, which is p(liked) − 1, may be 1 at most.
TUNING = TuningConfig(
    goal="goal",
    constraints={"harm": Limits(at_most=1.0)},
    parameters={"p(liked)": Range(0, 4), "rerank.apart[0].places": Range(2, 8)},
)


def played(values: dict[str, float]) -> Trial:
    liked, places = values["p(liked)"], values["rerank.apart[0].places"]
    changes = {"goal": 4 - (liked - 3) ** 2 - 0.1 * (places - 5) ** 2, "harm": liked - 1}
    return Trial(values, {}, changes)


def test_bayesian_optimisation_finds_the_best_that_is_allowed(
    make_space: Callable[..., Space],
) -> None:
    space = make_space(liked=(0, 4), places=(2, 8))
    trials = [played(values) for values in (space.now, *drawn(space, 4, seed=0))]
    trials.append(Trial(space.now, {}, {"goal": math.nan, "harm": 0.0}))
    for _ in range(6):
        trials.append(played(propose(space, trials, TUNING, seed=0)))
    best = choose(trials, TUNING)
    assert best is not None and best.is_feasible(TUNING)
    assert best.parameters["p(liked)"] == pytest.approx(2.0, abs=0.1)
    assert best.parameters["rerank.apart[0].places"] in (4, 5, 6)
    assert propose(space, trials[:-1], TUNING, seed=0) == trials[-1].parameters


def offline(funnel: FunnelConfig) -> dict[str, float]:
    """Linear in the goal, on a scale of its own; ``still`` says nothing."""
    model = parse_value(funnel.value.expression, ("liked", "see_less"), ("watch_time",))
    liked = model(np.array([[1.0, 0.0, 0.0]]))[0]
    return {"near": 50 - 5 * (liked - 3) ** 2, "harm": 20 + liked, "still": 0.0}


def with_offline(space: Space, values: dict[str, float]) -> Trial:
    return Trial(values, {}, played(values).changes, {}, offline(space.funnel_with(values)))


def test_the_map_is_learned_and_the_best_that_it_allows_is_found(
    make_space: Callable[..., Space],
) -> None:
    space = make_space(liked=(0, 4))
    now = offline(space.funnel_with({}))
    trials = []
    for one in drawn(space, 16, seed=1):
        values = {**one, "rerank.apart[0].places": 5}
        changes = played(values).changes
        # no change of offline metrics is no change online
        changes["goal"] -= played({"p(liked)": 1.0, "rerank.apart[0].places": 5}).changes["goal"]
        trials.append(Trial(one, {}, changes, {}, offline(space.funnel_with(one))))
    expected = OfflineMap(trials, now, ["goal", "harm"])
    predicted = expected.predict(offline(space.funnel_with({"p(liked)": 2.0})))
    assert predicted["goal"] == pytest.approx(3.0, abs=0.2)  # −1 less −4
    assert predicted["harm"] == pytest.approx(1.0, abs=0.1)
    assert expected.predict(now) == pytest.approx({"goal": 0, "harm": 0})
    found = search(space, offline, expected, TUNING, evaluations=320, seed=0)
    assert found["p(liked)"] == pytest.approx(2.0, abs=0.15)
    unreachable = TuningConfig(
        goal="goal", constraints={"harm": Limits(at_most=-5)}, parameters=TUNING.parameters
    )
    least = search(space, offline, expected, unreachable, evaluations=320, seed=0)
    assert least["p(liked)"] == pytest.approx(0.0, abs=0.1)
