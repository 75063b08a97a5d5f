"""Trained models play a world: they know what was shown, and items of after their training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.cli.main import invoke
from recsys.core.errors import ArtifactError
from recsys.data.contract.schema import TimelineKind
from recsys.data.simulator import simulate
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.world import World
from recsys.evaluation.paired import Bootstrap
from recsys.online.compare import OnlineMetric, compared, played
from recsys.online.funnel import FunnelPolicy
from recsys.online.played_log import PlayedLog
from recsys.online.policies import Random, make_policy
from recsys.serving.funnel.funnel import FIRST, SECOND
from tests.data.simulator.conftest import load_config

TICK = 300_000
FUNNEL = """
models:
  ranker: {{path: {folder}/ranker/artifact, context: {{position: 0}}}}
  towers: {{path: {folder}/towers/artifact}}
sources:
  trending: {{quota: 20}}
  retrieved: {{near: {{model: towers, quota: 40}}}}
  similar: {{alike: {{model: towers, quota: 20}}}}
first: {{scorer: towers, candidates: 100}}
second: {{scorer: ranker, candidates: 30}}
value: {{expression: 1.0 * p(liked) + 0.01 * watch_time}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, and models that have hardly seen its log."""
    folder = tmp_path_factory.mktemp("world")
    tiny = ("users=90", "activity.scale=0.05", "catalogue.items=2500", "catalogue.authors=120")
    shortlist = "world.recommender.shortlist=100"
    simulate(load_config("explore_small", *tiny, shortlist), folder / "log", 2_000)
    data = ("data=simulated", f"data.path={folder / 'log'}", f"data.out={folder / 'prepared'}")
    few = ("trainer.max_steps=3", "trainer.progress_bar=false", "loader.num_workers=0")
    sizes = {
        "ranker": ("system=ranker", "model.net.dimension=8", "loader.max_events=12"),
        "towers": ("system=two_tower", "loader.batch_size=16", "model.items.width=8"),
    }
    for name, own in sizes.items():
        run_dir = f"run_dir={folder / name}"
        assert invoke(["train", *data, *few, *own, run_dir]) == 0
        assert invoke(["export", run_dir, "measure=false"]) == 0
    (folder / "models.yaml").write_text(FUNNEL.format(folder=folder))
    return folder


def test_models_score_and_find_also_what_was_published_later(folder: Path) -> None:
    world = World.open(folder / "log")
    policy = make_policy(str(folder / "models.yaml"), world)
    assert isinstance(policy, FunnelPolicy)
    visits = world.visits(world.log_end, world.log_end + 12 * 3_600_000)
    shown, scored = [], []
    run = policy.funnel.run

    def noted(requests, k):  # type: ignore[no-untyped-def]
        outcome = run(requests, k)
        scored.append(outcome.candidates.scores)
        return outcome

    object.__setattr__(policy.funnel, "run", noted)
    for tick in play(world, policy, visits, TICK):
        assert not tick.refused.any()
        shown.append(tick.shown.item)
    published = world.items.published[np.concatenate(shown)] + world.start
    assert (published > world.log_end).any()
    first = np.concatenate([one[FIRST] for one in scored])
    second = np.concatenate([one[SECOND] for one in scored])
    assert np.isfinite(first).mean() > 0.9
    predicted = second[np.isfinite(second).all(axis=1)]
    assert len(predicted) and (predicted[:, 0] > 0).all() and (predicted[:, 0] < 1).all()
    assert len(np.unique(predicted[:, 0])) > 20


def test_what_a_ranker_makes_of_users_is_kept(folder: Path) -> None:
    world = World.open(folder / "log")
    visits = world.visits(world.log_end, world.log_end + 12 * 3_600_000)

    def plays(*changes: str) -> tuple[NDArray[np.int64], dict[str, OnlineMetric]]:
        policy = make_policy(str(folder / "models.yaml"), world, changes)
        sums = played(world, policy, visits, TICK, 6.0)
        found = compared(sums, sums, Bootstrap(resamples=5)).metrics
        return sums.sums[:, 0], {one.name: one for one in found}

    visited, without = plays("cache.policy=user_side", "cache.max_age_hours=0")
    _, kept = plays("cache.policy=user_side", "cache.max_age_hours=12")
    assert without["user_sides_kept_share"].policy.value == 0
    again = np.maximum(visited - 1, 0).sum() / visited.sum()  # all but everybody's first visit
    assert kept["user_sides_kept_share"].policy.value == pytest.approx(again)
    assert again > 0
    # no pair is spared
    scored = [found["pairs_scored"].policy.value for found in (without, kept)]
    assert scored[0] == pytest.approx(scored[1], rel=0.1) and scored[1] > 10


def test_what_is_shown_is_known_as_a_service_would_know_it(folder: Path) -> None:
    world = World.open(folder / "log")
    log = PlayedLog(world, folder / "prepared")
    visits = world.visits(world.log_end, world.log_end + 12 * 3_600_000)
    ticks = list(play(world, Random(world), visits, TICK))
    for tick in ticks:
        log.observe(tick.shown)
    shown = ticks[0].shown
    user = int(log.numbering.user[shown.user[0]])
    history = log.dataset.timelines.history(user, world.end, TimelineKind.IMPLICIT, 10_000)
    mine = np.concatenate([t.shown.item[t.shown.user == shown.user[0]] for t in ticks])
    assert set(log.numbering.item[mine]) <= set(history["item"])
    assert (log.numbering.item > 0).all()
    played = history["timestamp"] > log.dataset.manifest.counts["last_timestamp"]
    assert np.isfinite(history["video_duration"][played]).any()  # of videos, as in the log
    explicit = log.dataset.timelines.history(user, world.end, TimelineKind.EXPLICIT, 10_000)
    acted = sum(
        int((t.shown.outcomes[t.shown.user == shown.user[0], :-1] == 1).sum()) for t in ticks
    )
    stored = len(
        PlayedLog(world, folder / "prepared").dataset.timelines.history(
            user, world.end, TimelineKind.EXPLICIT, 10_000
        )["item"]
    )
    see_less = sum(
        int((t.shown.outcomes[t.shown.user == shown.user[0], -1] == 1).sum()) for t in ticks
    )
    assert len(explicit["item"]) >= stored + acted - see_less > stored


def test_models_whose_data_set_is_gone_are_a_sentence(folder: Path) -> None:
    world = World.open(folder / "log")
    moved = folder / "moved"
    (folder / "prepared").rename(moved)
    try:
        with pytest.raises(ArtifactError, match="which is not there"):
            make_policy(str(folder / "models.yaml"), world)
    finally:
        moved.rename(folder / "prepared")
