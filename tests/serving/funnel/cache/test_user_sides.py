"""What a ranker makes of users is kept for a time, and all candidates are scored by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.artifacts.ranker_tower import RankerArtifact
from recsys.data.contract.schema import ACTION_TYPES
from recsys.serving.funnel.cache.user_sides import KeptSides, UserSided, UserSides
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.stages import Scorer
from tests.serving.funnel.test_models import NOW, exported, opened, requests  # noqa: F401
from tests.systems.own_log import RunOf, run_of  # noqa: F401

HOUR = 3_600_000
ITEMS = np.array([1, 2, 3, 4, 5, 6])
LENGTHS = np.array([3, 0, 3])


def test_a_side_is_of_a_time_of_a_user_and_of_so_many() -> None:
    kept = KeptSides(UserSides(), max_age_ms=100, users=2)
    kept.put(0, 10, "nobody")
    assert kept.get(0, 10) is None  # whoever is not known has no side that is theirs
    kept.put(1, 10, "one")
    assert kept.get(1, 110) == "one"
    assert kept.get(1, 111) is None
    assert kept.get(1, 9) is None  # of clocks that disagree
    for user in (2, 1, 3):
        kept.put(user, 20, str(user))
    assert [kept.get(user, 30) for user in (1, 2, 3)] == ["1", None, "3"]


def score(scorer: Scorer, asked: Requests) -> NDArray[np.floating]:
    return scorer.score(asked, LENGTHS, ITEMS)


def test_candidates_are_scored_by_what_was_made_of_the_user_before(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, live = opened(exported("ranker"), run_of("ranker"))
    plain = model.scorer(["click"])
    assert isinstance(plain, UserSided)
    kept = KeptSides(plain.sides, HOUR, 10)
    scorer = plain.keeping(kept)
    made: list[int] = []
    encode = RankerArtifact.encode_user

    def counting(artifact: RankerArtifact, **inputs: object) -> object:
        made.append(1)
        return encode(artifact, **inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(RankerArtifact, "encode_user", counting)
    then = requests(live)
    assert kept.of(then).tolist() == [False, False, False]
    first = score(scorer, then)
    assert len(made) == 2  # the second has nobody to score
    np.testing.assert_array_equal(first, score(plain, then))
    assert kept.of(then).tolist() == [True, False, True]

    user, other = int(then.user[0]), int(then.user[2])
    click = ACTION_TYPES.index("click")
    event = {"user": [user], "item": [9], "timestamp": [NOW + 1_000]}
    live.live.append({**event, "action_type": [click]})
    later = replace(then, moment=np.full(3, NOW + HOUR // 2))
    made.clear()
    stale = score(scorer, later)
    assert not made
    now = KeptSides(UserSides(), HOUR, 10)
    score(plain.keeping(now), later)
    before, after = kept.get(user, NOW), now.get(user, NOW + HOUR)
    assert any(bool((of != after[name]).any()) for name, of in before.items())
    # the candidates' part is of now: by hand, the side of then and the numbers of now
    reader, artifact = model.reader, model.artifact  # type: ignore[attr-defined]
    rows = reader.given_rows(
        np.array([user]), later.moment[:1], np.array([3]), ITEMS[:3], {"surface": "feed"}
    )
    by_hand = artifact.score(kept.get(user, NOW), **reader.candidate_side(rows))
    place = [one["name"] for one in artifact.manifest.tasks].index("click")
    np.testing.assert_array_equal(stale[:3, 0], by_hand[:, place].numpy())

    made.clear()
    much_later = replace(then, moment=np.full(3, NOW + HOUR + 1))
    np.testing.assert_array_equal(score(scorer, much_later), score(plain, much_later))
    assert kept.get(other, NOW + 2 * HOUR) is not None  # made anew, and kept from then on
    assert len(model.grown(live).scorer(["click"]).sides) == 2  # type: ignore[attr-defined]


def test_a_side_that_is_no_number_is_not_kept(
    run_of: RunOf,  # noqa: F811
    exported: Callable[[str], Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, live = opened(exported("ranker"), run_of("ranker"))
    plain = model.scorer(["click"])
    assert isinstance(plain, UserSided)
    scorer = plain.keeping(KeptSides(plain.sides, HOUR, 10))
    encode = RankerArtifact.encode_user

    def broken(artifact: RankerArtifact, **inputs: object) -> object:
        side = encode(artifact, **inputs)  # type: ignore[arg-type]
        return side | {"first": side["first"] * np.nan}

    monkeypatch.setattr(RankerArtifact, "encode_user", broken)
    assert np.isnan(score(scorer, requests(live))).all()
    monkeypatch.undo()
    assert np.isfinite(score(scorer, requests(live))).all()
