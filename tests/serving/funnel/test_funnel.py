"""The stages together, beside plain loops; late and failing stages; each request alone."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.core.errors import ConfigError, DataError
from recsys.serving.funnel.candidates import Offers, Requests, Share
from recsys.serving.funnel.funnel import FIRST, SECOND, VALUE, Scoring, Supply, Valuing
from recsys.serving.funnel.rerank import RerankConfig
from recsys.serving.funnel.value import parse_value
from tests.serving.funnel.small_funnel import (
    APPEAL,
    AUTHOR,
    BORN,
    INTEGRITY,
    REGION,
    SEEN,
    Appeal,
    Broken,
    Everything,
    funnel,
    requests,
)


def expected(user: int, k: int) -> list[int]:
    """The same funnel as loops."""
    fused: dict[int, float] = {}
    for offered, weight in ((range(30), 1.0), (range(20, 35), 2.0)):
        for rank, item in enumerate(offered):
            fused[item] = fused.get(item, 0.0) + weight / (61 + rank)
    left = sorted(fused, key=lambda item: (-fused[item], item))[:34]
    blocked = {1: [2, 3], 4: [5]}.get(user, [])
    hours = 8 - BORN / 3_600_000
    left = [
        item
        for item in left
        if not SEEN[user, item]
        and INTEGRITY[item] >= 0.1
        and REGION[item] in (0, user % 3)
        and 0 <= hours[item] <= 7
        and (AUTHOR[item] == 0 or AUTHOR[item] not in blocked)
    ]
    left = sorted(left[:30], key=lambda item: -APPEAL[user, item])[:8]
    value = {item: APPEAL[user, item] - 0.1 * (1 - APPEAL[user, item]) for item in left}
    found: list[int] = []
    while left and len(found) < k:
        free = [i for i in left if not found or AUTHOR[i] == 0 or AUTHOR[i] != AUTHOR[found[-1]]]
        best = max(free or left, key=lambda item: value[item])
        found.append(best)
        left.remove(best)
    return found + [-1] * (k - len(found))


@settings(max_examples=30)
@given(st.lists(st.integers(0, 49), min_size=0, max_size=6), st.integers(1, 10))
def test_lists_are_what_loops_give_and_a_request_alone_gets_the_same(
    users: list[int], k: int
) -> None:
    outcome = funnel().run(requests(users), k)
    lists = outcome.lists(k)
    assert lists.tolist() == [expected(user, k) for user in users]
    for number, user in enumerate(users):
        alone = funnel().run(requests([user]), k).candidates
        together = outcome.candidates.request == number
        for stage, scores in outcome.candidates.scores.items():
            assert alone.scores[stage].tobytes() == scores[together].tobytes()


def test_every_candidate_says_where_it_ended() -> None:
    made = funnel()
    candidates = made.run(requests([1, 2]), 3).candidates
    assert set(made.stages[number] for number in candidates.death[~candidates.alive]) == set(
        made.stages
    ) - {SECOND, VALUE}
    assert (candidates.alive == (candidates.position > 0)).all()
    both = candidates.sources == 0b11
    assert both.any() and (candidates.item[both] >= 20).all()


def test_groups_have_values_of_their_own() -> None:
    less = parse_value("0 - p(like)", ["like", "hide"])
    of_group = replace(funnel(), value=Valuing(funnel().value.model, "region", {1: less}))
    assert of_group.run(requests([3]), 5).lists(5).tolist() == [expected(3, 5)]
    reversed_list = of_group.run(requests([4]), 30).lists(30)[0]
    appeal = APPEAL[4, reversed_list[reversed_list >= 0]]
    rules = replace(of_group, rules=RerankConfig())
    plain = rules.run(requests([4]), 30).lists(30)[0]
    assert (np.diff(APPEAL[4, plain[plain >= 0]]) >= 0).all() and len(appeal) > 1
    with pytest.raises(ConfigError, match="no column country; they have region"):
        replace(funnel(), value=Valuing(less, "country", {1: less})).run(requests([4]), 3)


@pytest.mark.parametrize("error", [DataError("Gone."), ValueError("gone")])
def test_a_stage_that_fails_is_done_without_where_that_is_tolerated(error: Exception) -> None:
    made = funnel()
    supplies = [*made.supplies, Supply(Broken(error), Share(5))]
    broken = replace(made, supplies=supplies, tolerant=True)
    outcome = broken.run(requests([1]), 5)
    assert outcome.lists(5).tolist() == [expected(1, 5)]
    assert "one" in outcome.missed["broken"]
    with pytest.raises(type(error)):
        replace(broken, tolerant=False).run(requests([1]), 5)
    filtered = replace(made, filters=[Broken(error)], tolerant=True)
    with pytest.raises(type(error)):
        filtered.run(requests([1]), 5)


def test_without_a_stage_the_order_before_it_decides() -> None:
    made = replace(funnel(), tolerant=True, rules=RerankConfig())
    without_first = replace(made, first=Scoring(Broken(ValueError("gone")), 30))
    outcome = without_first.run(requests([2]), 3)
    asked = ~np.isnan(outcome.candidates.scores[SECOND][:, 0])
    none = replace(made, first=None).run(requests([2]), 3)
    assert FIRST in outcome.missed
    assert (asked == ~np.isnan(none.candidates.scores[SECOND][:, 0])).all()
    without_second = replace(made, second=Scoring(Broken(ValueError("gone")), 8))
    outcome = without_second.run(requests([2]), 3)
    candidates = outcome.candidates
    passed = np.flatnonzero(candidates.alive | (candidates.death >= made.stages.index(SECOND)))
    best = passed[np.argsort(-candidates.scores[FIRST][passed], kind="stable")[:3]]
    assert outcome.lists(3)[0].tolist() == candidates.item[best].tolist()


def test_scores_that_are_no_number_leave_a_candidate_out() -> None:
    class NotANumber(Appeal):
        def score(self, *of: object) -> NDArray[np.floating]:
            found = super().score(*of)  # type: ignore[arg-type]
            found[0] = np.nan
            return found

    made = replace(funnel(), second=Scoring(NotANumber(2), 8))
    outcome = made.run(requests([2]), 8)
    shown = outcome.candidates.position > 0
    assert shown.sum() == sum(item >= 0 for item in expected(2, 8)) - 1
    assert not np.isnan(outcome.candidates.scores[VALUE][shown]).any()


def test_a_source_that_is_late_is_left_out() -> None:
    release = threading.Event()

    class Waits(Everything):
        def find(self, requests: Requests) -> Offers:
            release.wait()
            return super().find(requests)

    made = funnel()
    late = Supply(Waits(0, "waits"), Share(5), deadline_ms=1.0)
    outcome = replace(made, supplies=[*made.supplies, late], tolerant=True).run(requests([1]), 5)
    release.set()
    assert outcome.missed == {"waits": "late"}
    assert outcome.lists(5).tolist() == [expected(1, 5)]


def test_a_deadline_cuts_the_second_stage_short_in_the_order_of_the_first() -> None:
    made = replace(funnel(), filters=[], rules=RerankConfig())
    out_of_time = replace(made, second=Scoring(Appeal(2), 8, deadline_ms=0.0))
    outcome = out_of_time.run(requests([1]), 3)
    assert outcome.missed == {SECOND: "late after 0 candidates"}
    first = outcome.candidates.scores[FIRST]
    best = outcome.candidates.item[np.argsort(-np.nan_to_num(first, nan=-1), kind="stable")[:3]]
    assert outcome.lists(3)[0].tolist() == best.tolist()
