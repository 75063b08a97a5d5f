"""The adjuster: learned from a ledger, monotone, kept in a file, refused where it must be."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.core.errors import ArtifactError, ConfigError, DataError
from recsys.core.json_files import write_json
from recsys.serving.funnel.cache.adjuster import Adjuster, Line, load_adjuster
from recsys.serving.funnel.cache.distil import AdjusterConfig, Distilled, distil
from recsys.serving.funnel.cache.rescore import FEATURES, Cached
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.funnel import SECOND, Scoring
from recsys.serving.funnel.ledger import Described, Ledger
from tests.serving.funnel.cache.small_cache import HOUR, asked, cached_funnel
from tests.serving.funnel.small_funnel import APPEAL

TASKS = ("like", "hide")


class Moving:
    """Scores that move with what is counted: logit(appeal) + 2 log(1 + item + hour)."""

    name = "moving"

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        user, moment = np.repeat(requests.user, lengths), np.repeat(requests.moment, lengths)
        logit = 4 * APPEAL[user, item] - 8 + 2 * np.log(1 + item + moment / HOUR)
        return np.stack([1 / (1 + np.exp(-logit)), 100 * APPEAL[user, item]], axis=1)


def play(folder: Path, sample_share: float = 1.0) -> None:
    made, _, known = cached_funnel(hours=8, sample_share=sample_share)
    made = replace(made, second=Scoring(Moving(), 8))
    with closing(Ledger(folder, Described.of(made))) as ledger:
        for hour in (0, 1, 3, 4, 7, 9, 12):
            known.hour = hour
            users = asked(list(range(1, 50)), hour)
            users = replace(users, number=users.number + 100 * hour)
            ledger.note(users, made.run(users, 5))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Distilled]:
    folder = tmp_path_factory.mktemp("adjuster")
    play(folder / "ledger")
    out = folder / "adjuster.json"
    return out, distil(AdjusterConfig(str(folder / "ledger"), str(out)))


def test_it_learns_how_scores_have_moved(learned: tuple[Path, Distilled]) -> None:
    out, found = learned
    assert found.tasks["like"] > 0
    assert found.tasks["hide"] == 0  # never moves
    whole = found.gaps[-1]
    assert whole.hours is None
    assert whole.samples == sum(one.samples for one in found.gaps[:-1]) >= found.samples // 5 - 1
    assert whole.adjusted < 0.5 * whole.stale
    made, _, known = cached_funnel(load_adjuster(out, TASKS), hours=8)
    made = replace(made, second=Scoring(Moving(), 8))
    known.hour = 1
    made.run(asked([3], 1), 5)
    known.hour = 6
    adjusted = made.run(asked([3], 6), 5).candidates
    fresh = replace(made, cache=None).run(asked([3], 6), 5).candidates
    there = adjusted.cached
    assert there.sum() == 8
    error = np.abs(adjusted.scores[SECOND][there] - fresh.scores[SECOND][there])
    assert error[:, 0].mean() < 0.05 and error[:, 1].max() < 1e-4


def test_of_two_that_differ_in_nothing_else_the_order_stays(
    learned: tuple[Path, Distilled],
) -> None:
    adjuster, rng = load_adjuster(learned[0], TASKS), np.random.default_rng(0)
    features = rng.uniform(-2, 8, (40, len(FEATURES))).astype(np.float32)
    grid = np.linspace(0, 1, 101, dtype=np.float32)
    scores = np.tile(np.stack([grid, 100 * grid], axis=1), (40, 1))
    found = adjuster(Cached(np.arange(4040), scores, np.repeat(features, 101, axis=0)))
    assert (np.diff(found.reshape(40, 101, 2), axis=1) >= -1e-12).all()
    assert ((found[:, 0] >= 0) & (found[:, 0] <= 1)).all()
    assert adjuster(Cached(np.arange(0), scores[:0], features[:0])).shape == (0, 2)


def test_a_line_by_hand() -> None:
    line = Line.fit(np.array([10.0, 20.0, 30.0]), np.array([6.0, 11.0, 16.0]))
    assert not line.probability
    assert (line.intercept, line.slope) == pytest.approx((1.0, 0.5))
    odds = np.array([1.0, 3.0, 7.0])
    line = Line.fit(odds / (1 + odds), 2 * odds / (1 + 2 * odds))
    assert line.probability and line.slope == pytest.approx(1, abs=1e-3)
    assert line.intercept == pytest.approx(np.log(2), abs=1e-3)
    assert line.score(line.of(np.array([0.5])))[0] == pytest.approx(2 / 3, abs=1e-3)
    assert Line.fit(np.array([3.0, 2.0]), np.array([2.0, 3.0])).slope == 0
    same = Line.fit(np.array([0.5, 0.5]), np.array([0.6, 0.8]))
    assert same.score(same.of(np.array([0.5])))[0] == pytest.approx(0.7, abs=1e-3)
    rng = np.random.default_rng(0)
    stale, fresh = rng.random(200) ** 3, rng.random(200) ** 4
    line = Line.fit(stale, fresh)
    assert line.score(line.of(stale)).mean() == pytest.approx(fresh.mean(), abs=1e-4)


def test_a_file_of_an_adjuster_is_replaced_and_no_other(learned: tuple[Path, Distilled]) -> None:
    out, _ = learned
    config = AdjusterConfig(str(out.parent / "ledger"), str(out), trees=3)
    before = load_adjuster(out, TASKS)
    assert distil(config).tasks["like"] <= 3
    before.save(out)
    again = load_adjuster(out, TASKS)
    one = Cached(
        np.arange(2),
        np.array([[0.2, 5], [0.9, 7]], np.float32),
        np.ones((2, len(FEATURES)), np.float32),
    )
    assert again(one).tobytes() == before(one).tobytes()
    mine = out.parent / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="not written by this command"):
        distil(replace(config, out=str(mine)))


def test_an_adjuster_of_something_else_is_refused(
    learned: tuple[Path, Distilled], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"adjusts like, hide, and the funnel predicts like;"):
        load_adjuster(learned[0], ("like",))
    other = tmp_path / "other.json"
    content = {"features": ["gap_days"], "tasks": TASKS, "lines": [], "trees": []}
    write_json(other, "adjuster of a funnel's cache", content)
    with pytest.raises(ArtifactError, match="looks at gap_days, and this release tells"):
        load_adjuster(other, TASKS)
    other.write_bytes(other.read_bytes().replace(b"gap_days", b"gap_year"))
    with pytest.raises(ArtifactError, match="is damaged"):
        load_adjuster(other, TASKS)
    with pytest.raises(ArtifactError, match="missing"):
        load_adjuster(tmp_path / "nowhere.json", TASKS)


def test_too_few_samples_teach_nothing(tmp_path: Path) -> None:
    play(tmp_path / "ledger", sample_share=0.05)
    config = AdjusterConfig(str(tmp_path / "ledger"), str(tmp_path / "out.json"))
    with pytest.raises(DataError, match=r"has \d+ cached candidates.*needs 1,000"):
        distil(config)
    made, _, _ = cached_funnel()
    made = replace(made, cache=None)
    with closing(Ledger(tmp_path / "plain", Described.of(made))) as ledger:
        ledger.note(asked([3], 1), made.run(asked([3], 1), 5))
    with pytest.raises(DataError, match=r"plain has 0 cached.*sample_share"):
        distil(replace(config, ledger=str(tmp_path / "plain")))
    assert not (tmp_path / "out.json").exists()


def test_an_adjuster_without_trees_keeps_stale_scores() -> None:
    kept = Adjuster(("like",), [Line(True, 0.0, 1.0)], [None])
    one = Cached(np.arange(1), np.array([[0.3]], np.float32), np.zeros((1, len(FEATURES))))
    assert kept(one)[0, 0] == np.float32(0.3)


def test_trees_do_not_look_at_what_is_left_out(
    learned: tuple[Path, Distilled], tmp_path: Path
) -> None:
    ledger, out = str(learned[0].parent / "ledger"), tmp_path / "alone.json"
    distil(AdjusterConfig(ledger, str(out), without=list(FEATURES)))
    stale = np.linspace(0.1, 0.9, 20, dtype=np.float32)[:, None].repeat(2, axis=1)
    some = np.random.default_rng(0).random((20, len(FEATURES))).astype(np.float32)
    said = [
        load_adjuster(out, TASKS)(Cached(np.arange(20), stale, features))
        for features in (some, 10 * some)
    ]
    assert (said[0] == said[1]).all()
    with pytest.raises(ConfigError, match="there is no feature gap"):
        AdjusterConfig(ledger, str(out), without=["gap"])
