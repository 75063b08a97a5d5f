"""Places for exploration: each candidate of the source as likely as its propensity says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from recsys.serving.funnel.candidates import Share
from recsys.serving.funnel.explore import Exploration
from recsys.serving.funnel.rerank import RerankConfig
from tests.serving.funnel.small_funnel import funnel, requests


def test_explored_items_come_to_their_places_and_the_others_keep_their_order() -> None:
    made = replace(funnel(), filters=[], rules=RerankConfig())
    of = requests([1, 2, 3, 7])
    plain = made.run(of, 6).lists(6)
    outcome = replace(made, exploration=Exploration(1, (2, 5))).run(of, 6)
    lists, candidates = outcome.lists(6), outcome.candidates
    for number in range(len(of)):
        explored = lists[number, [1, 4]]
        rest = [one for one in lists[number].tolist() if one not in explored]
        wanted = [one for one in plain[number].tolist() if one not in explored]
        assert rest == wanted[: len(rest)]
        assert len(set(lists[number].tolist())) == 6
    drawn = ~np.isnan(candidates.propensity)
    assert sorted(set(candidates.position[drawn].tolist())) == [2, 5]
    assert (candidates.sources[drawn] & 2 == 2).all()
    assert not ((candidates.death >= 0) & (candidates.position > 0)).any()
    assert drawn.sum() == 8


def test_draws_follow_from_the_requests_number_and_are_as_likely_as_said() -> None:
    made = replace(funnel(), exploration=Exploration(1, (1,), seed=3), rules=RerankConfig())
    number = 3_000
    of = replace(requests([2] * number), number=np.arange(number))
    outcome = made.run(of, 3)
    first = outcome.lists(3)[:, 0]
    drawn = outcome.candidates.propensity[~np.isnan(outcome.candidates.propensity)]
    counts = Counter(first.tolist())
    assert len(counts) == round(1 / drawn[0]) and (drawn == drawn[0]).all()
    share = np.array(list(counts.values())) / number
    # six standard deviations
    assert (abs(share - drawn[0]) < 6 * np.sqrt(drawn[0] / number)).all()
    alone = replace(requests([2]), number=np.array([1_234]))
    assert made.run(alone, 3).lists(3)[0].tolist() == outcome.lists(3)[1_234].tolist()


def test_a_source_without_candidates_leaves_the_list_as_it_is() -> None:
    made = funnel()
    supplies = [made.supplies[0], replace(made.supplies[1], share=Share(0))]
    without = replace(made, supplies=supplies)
    explored = replace(without, exploration=Exploration(1, (1, 2)))
    of = requests([1, 2])
    assert explored.run(of, 4).lists(4).tolist() == without.run(of, 4).lists(4).tolist()
