"""The cache of a funnel: who is scored again, what becomes of cached scores, and what is kept."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.ledger import scan_ledger
from recsys.serving.funnel.cache.feed_state import FeedState
from recsys.serving.funnel.cache.lists import LastList, WithoutList
from recsys.serving.funnel.cache.rescore import FEATURES, Cached, Decay, stale
from recsys.serving.funnel.cache.stores import LmdbStore
from recsys.serving.funnel.candidates import GAP, Offers, Requests, Share
from recsys.serving.funnel.funnel import SECOND, VALUE, Scoring, Supply
from recsys.serving.funnel.ledger import Described, Ledger, explain, noted
from recsys.serving.funnel.replay import replay
from recsys.serving.funnel.report import report
from tests.serving.funnel.cache.small_cache import HOUR, ROW, Hourly, asked, cached_funnel
from tests.serving.funnel.small_funnel import SEEN, Broken, Everything


def test_the_first_time_it_is_as_without_a_cache() -> None:
    made, _, _ = cached_funnel()
    with_cache = made.run(asked([3, 1], 1), 5).candidates
    without = replace(made, cache=None).run(asked([3, 1], 1), 5).candidates
    assert with_cache.position.tobytes() == without.position.tobytes()
    for stage, scores in without.scores.items():
        assert with_cache.scores[stage].tobytes() == scores.tobytes()
    assert np.isnan(with_cache.scores[GAP]).all()


def test_candidates_of_the_last_hours_are_not_scored_again() -> None:
    made, scorer, _ = cached_funnel()
    first = made.run(asked([3, 1], 1), 5).candidates
    assert len(scorer.asked) == 16
    scorer.asked.clear()
    again = made.run(asked([1, 3, 4], 2), 5).candidates
    assert {user for user, _ in scorer.asked} == {4} and len(scorer.asked) == 8
    assert again.cached.sum() == 16
    assert set(again.scores[GAP][again.cached].tolist()) == {1.0}
    of_one = {
        (user, item): score
        for user, item, score in zip(
            np.array([3, 1])[first.request], first.item, first.scores[SECOND][:, 0], strict=True
        )
    }
    now = zip(np.array([1, 3, 4])[again.request], again.item, again.scores[SECOND], strict=True)
    for (user, item, scores), is_cached in zip(now, again.cached, strict=True):
        if is_cached:
            assert scores[0] == of_one[user, item]
    fresh = replace(made, cache=None).run(asked([1, 3, 4], 2), 5).candidates
    new = again.request == 2
    assert again.scores[VALUE][new].tobytes() == fresh.scores[VALUE][new].tobytes()
    assert (again.position[new] == fresh.position[new]).all()


def test_after_t1_or_before_the_clock_they_are_scored_again() -> None:
    made, scorer, _ = cached_funnel(hours=3)
    made.run(asked([3], 2), 5)
    for hour, times in ((5, 0), (5.01, 8), (1, 8)):
        scorer.asked.clear()
        made.run(asked([3], hour), 5)
        assert len(scorer.asked) == times


def test_what_was_cached_keeps_its_age_and_new_candidates_join_it() -> None:
    made, scorer, _ = cached_funnel(hours=3)
    few = replace(made, second=Scoring(scorer, 4))
    few.run(asked([3], 0), 5)
    made.run(asked([3], 2), 5)
    last = made.run(asked([3], 3), 5).candidates
    assert sorted(last.scores[GAP][last.cached].tolist()) == [1.0] * 4 + [3.0] * 4
    assert made.run(asked([3], 4), 5).candidates.cached.sum() == 4


def test_a_score_decays_linearly() -> None:
    made, _, _ = cached_funnel(Decay(0.5, 4.0), hours=4)
    then = made.run(asked([3], 1), 5).candidates
    now = made.run(asked([3], 3), 5).candidates
    there = ~np.isnan(then.scores[SECOND][:, 0])
    assert now.scores[SECOND][there] == pytest.approx(then.scores[SECOND][there] * 0.75)


def test_features_say_how_counters_have_moved() -> None:
    seen: list[Cached] = []

    def noting(cached: Cached) -> np.ndarray:
        seen.append(cached)
        return cached.scores

    made, _, known = cached_funnel(noting)
    first = made.run(asked([3], 8), 5)
    known.hour = 2.0
    again = made.run(asked([3], 10), 5).candidates
    cached = seen[-1]
    features = dict(zip(FEATURES, cached.features.T, strict=True))
    item = again.item[cached.at]
    assert features["gap_hours"].tolist() == [2.0] * 8
    assert features["age_hours"] == pytest.approx(10 - known.born[item] / HOUR)
    assert features["engagements"] == pytest.approx(np.log(1 + item + 2))
    assert features["engagements_grown"] == pytest.approx(
        np.log(1 + item + 2) - np.log(1 + item), abs=1e-6
    )
    assert features["affinity"] == pytest.approx(np.log(4 / (3 + item)))
    assert features["affinity_grown"] == pytest.approx(np.log((1 + item) / (3 + item)), abs=1e-6)
    shown = first.lists(5)[0].tolist()
    places = [shown.index(one) + 1 if one in shown else 0 for one in item.tolist()]
    assert features["place"].tolist() == places


def test_a_score_that_is_no_number_is_not_kept() -> None:
    class Odd(Hourly):
        def score(self, requests, lengths, item):
            found = super().score(requests, lengths, item)
            return np.where((item % 2 == 0)[:, None], np.nan, found)

    made, _, _ = cached_funnel()
    odd = replace(made, second=Scoring(Odd(), 8))
    first = odd.run(asked([3], 1), 5).candidates
    sound = ~np.isnan(first.scores[SECOND][:, 0])
    assert 0 < sound.sum() < 8
    again = odd.run(asked([3], 2), 5).candidates
    assert (again.cached == sound).all()


def test_a_scorer_that_fails_leaves_what_is_cached_and_a_cache_that_fails_nothing() -> None:
    made, scorer, _ = cached_funnel()
    made.run(asked([3], 1), 5)
    broken = replace(made, second=Scoring(Broken(ValueError("gone")), 8), tolerant=True)
    outcome = broken.run(asked([3], 2), 5)
    assert not outcome.missed and (outcome.lists(5) >= 0).all()

    def failing(cached: Cached) -> np.ndarray:
        raise OSError("no cache")

    assert made.cache is not None
    tolerant = replace(made, cache=replace(made.cache, rescore=failing), tolerant=True)
    scorer.asked.clear()
    outcome = tolerant.run(asked([3], 2), 5)
    assert outcome.missed == {"cache": "OSError: no cache"} and len(scorer.asked) == 8
    assert (outcome.lists(5) >= 0).all()
    with pytest.raises(OSError, match="no cache"):
        replace(tolerant, tolerant=False).run(asked([3], 2), 5)


def test_some_requests_are_scored_freshly_to_learn_from_and_it_changes_no_list(
    tmp_path: Path,
) -> None:
    lists = []
    for share in (0.0, 0.5):
        made, scorer, _ = cached_funnel(sample_share=share)
        users = list(range(1, 21))
        made.run(asked(users, 1), 5)
        scorer.asked.clear()
        outcome = made.run(asked(users, 2), 5)
        lists.append(outcome.lists(5).tolist())
    assert lists[0] == lists[1]
    samples = outcome.samples
    assert samples is not None and len(samples.at) == len(scorer.asked)
    of = outcome.candidates.request[samples.at]
    chosen = set(of.tolist())
    assert 3 < len(chosen) < 17 and len(of) == 8 * len(chosen)
    user, item = np.array(users)[of], outcome.candidates.item[samples.at]
    assert samples.predictions[:, 0] == pytest.approx((user * 7 + item * 13 + 10) % 31 / 31)
    assert samples.cached.scores[:, 0] == pytest.approx((user * 7 + item * 13 + 5) % 31 / 31)
    with closing(Ledger(tmp_path / "ledger", Described.of(made))) as ledger:
        ledger.note(asked(users, 2), outcome)
    rows = scan_ledger(tmp_path / "ledger").collect()
    assert rows["sample_fresh"].list.len().sum() == 2 * len(of)
    assert rows["sample_features"].list.len().sum() == len(FEATURES) * len(of)
    found = report(tmp_path / "ledger")
    assert (found.cached, found.gap_hours) == (1.0, 1.0)
    assert [one.name for one in found.stages][-4:] == ["cache", "second", "value", "list"]
    assert explain(tmp_path / "ledger", 3)["gap_hours"].drop_nans().to_list() == [1.0] * 8
    (_, again), *_ = noted(tmp_path / "ledger")
    assert again.candidates.cached.tolist() == outcome.candidates.cached.tolist()
    with pytest.raises(ConfigError, match="with a cache cannot be replayed"):
        replay(tmp_path / "ledger", made, 5)
    with pytest.raises(DataError, match="others; name another folder"):
        Ledger(tmp_path / "ledger", Described.of(replace(made, cache=None)))


def listing(unseen: int) -> tuple[object, Hourly, list[int]]:
    """A funnel with lists cached, its scorer, and the users whom its source was asked for."""
    made, scorer, known = cached_funnel(stale, hours=3)
    assert made.cache is not None
    last, users = LastList(made.cache.feed, known, unseen), []

    class Noting(Everything):
        def find(self, requests: Requests) -> Offers:
            users.extend(requests.user.tolist())
            return super().find(requests)

    supplies = [
        Supply(WithoutList(Noting(0, "all"), last), Share(30)),
        Supply(last, Share(100)),
    ]
    return replace(made, supplies=supplies), scorer, users


def test_the_last_list_comes_again_without_what_was_seen() -> None:
    made, scorer, users = listing(unseen=3)
    first = made.run(asked([3, 1], 1), 5)
    assert users == [3, 1] and len(scorer.asked) == 16
    again = made.run(asked([1, 4, 3], 2), 5)
    assert users == [3, 1, 4] and len(scorer.asked) == 24
    assert again.lists(5)[[2, 0]].tolist() == first.lists(5).tolist()
    shown = first.lists(5)[0, :2]
    SEEN[3, shown] = True
    try:
        third = made.run(asked([3], 3), 5)
        assert not np.isin(shown, third.lists(5)).any() and users == [3, 1, 4]
        old = made.run(asked([3], 4.5), 5)
        assert users[-1] == 3 and not old.candidates.cached.any()
    finally:
        SEEN[3, shown] = False


def test_a_list_that_is_nearly_seen_is_made_anew() -> None:
    made, _, users = listing(unseen=9)
    made.run(asked([3], 1), 5)
    made.run(asked([3], 2), 5)
    assert users == [3, 3]


def test_a_service_that_starts_again_has_what_it_scored_before(tmp_path: Path) -> None:
    made, scorer, _ = cached_funnel()
    for times in (8, 0):
        scorer.asked.clear()
        with closing(LmdbStore(tmp_path / "feed", ("like", "hide"))) as store:
            feed = FeedState(store, ROW, "one", 3 * HOUR, 100)
            assert made.cache is not None
            replace(made, cache=replace(made.cache, feed=feed)).run(asked([3], 1), 5)
        assert len(scorer.asked) == times
