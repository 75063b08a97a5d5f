"""A declared funnel as a policy: what it knows, what it may show, and where it loses value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.composition import load
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.data.simulator import simulate
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.world import World
from recsys.evaluation.paired import Bootstrap
from recsys.online.compare import compared, played
from recsys.online.funnel import FunnelPolicy
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.policies import Popular, Random, make_policy
from recsys.online.regret import BEST, RegretSums
from recsys.serving.funnel.config import FunnelConfig, StageConfig
from tests.data.simulator.conftest import load_config

TICK = 300_000
HOUR = 3_600_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world") / "log"
    tiny = ("users=90", "activity.scale=0.05", "catalogue.items=2500", "catalogue.authors=120")
    shortlist = "world.recommender.shortlist=100"
    simulate(load_config("explore_small", *tiny, shortlist), folder, impressions_per_part=2_000)
    return World.open(folder)


def config() -> FunnelConfig:
    return load(conf_dir() / "funnel" / "explore.yaml", FunnelConfig)


def test_a_funnel_is_worth_more_than_chance_and_says_where_it_loses(world: World) -> None:
    visits = world.visits(world.log_end, world.end)
    policy = FunnelPolicy(world, config())
    policy.regret = RegretSums(world, policy.funnel, every=3)
    tried = played(world, policy, visits, TICK, 6.0)
    other = played(world, Random(world), visits, TICK, 6.0)
    found = {one.name: one for one in compared(tried, other, Bootstrap(resamples=200)).metrics}
    assert found["value_per_session"].difference.low > 0
    assert found["refused_per_session"].policy.value == 0
    assert found["pairs_scored"].policy.value == config().second.candidates
    of = policy.regret
    assert of.visits.sum() == -(-len(visits) // 3)
    parts = dict(zip(of.names, of.sums.sum(axis=0), strict=True))
    lost = sum(value for name, value in parts.items() if name != BEST)
    assert 0 < lost < parts[BEST]
    assert min(parts[name] for name in (*of.names[:-1],)) >= -1e-6
    assert parts["seen"] == parts["integrity"] == pytest.approx(0, abs=1e-6)


def test_what_is_shown_is_alive_unseen_sound_and_explored_as_often_as_said(world: World) -> None:
    visits = world.visits(world.log_end, world.end)
    policy = FunnelPolicy(world, config())
    for tick in play(world, policy, visits, TICK):
        assert not tick.refused.any()
        shown = tick.shown
        assert (world.items.integrity[shown.item] >= 0.5).all()
        explored = ~np.isnan(shown.propensity)
        assert np.isin(shown.position[explored], [5, 17]).all()
        age = (
            shown.request_time[explored] - world.start - world.items.published[shown.item[explored]]
        )
        assert (age <= 6 * HOUR).all()


def test_a_list_follows_from_what_was_observed_and_not_from_the_truth(world: World) -> None:
    visits = world.visits(world.log_end, world.end)
    ticks = list(play(world, Popular(world), visits, TICK))
    some, known = len(ticks) // 2, PlayedKnowledge(world)
    for tick in ticks[:some]:
        known.observe(tick.shown)
    user, item = ticks[some].shown.user[:5], ticks[some].shown.item[:5]
    before = known.expected(user, item)
    shuffled = np.random.default_rng(0).permutation(world.items._quality)
    quality, world.items._quality = world.items._quality, shuffled
    try:
        assert (known.expected(user, item) == before).all()
    finally:
        world.items._quality = quality
    known.observe(ticks[some].shown)
    assert (known.expected(user, item) != before).any()
    favourites = known.favourites("author", np.arange(len(world.users)))
    assert favourites.max() < world.catalogue.item_author.max() + 1 and (favourites >= 0).any()


def test_random_scores_know_nothing(world: World) -> None:
    visits = world.visits(world.log_end, world.end)
    nothing = replace(config(), first=None, second=StageConfig("random", 100))
    counted = replace(config(), first=None, second=StageConfig("rates", 100))
    sums = [played(world, FunnelPolicy(world, of), visits, TICK, 6.0) for of in (counted, nothing)]
    found = compared(sums[0], sums[1], Bootstrap(resamples=200)).metrics[0]
    assert found.difference.low > 0


def test_a_funnel_is_found_by_name_or_file(world: World, tmp_path: Path) -> None:
    assert isinstance(make_policy("explore", world), FunnelPolicy)
    file = tmp_path / "mine.yaml"
    file.write_text("sources: {fresh: {quota: 3}}\nvalue: {expression: p(liked)}\n")
    mine = make_policy(str(file), world)
    visits = world.visits(world.log_end, world.log_end + 12 * HOUR)
    lists = [tick.shown for tick in play(world, mine, visits, TICK)]
    assert max(one.position.max(initial=0) for one in lists) <= 2
    with pytest.raises(ConfigError, match="explore"):
        make_policy("explor", world)
    changed = make_policy("explore", world, ["sources.fresh=null", "exploration=null"])
    assert isinstance(changed, FunnelPolicy)
    names = [one.source.name for one in changed.funnel.supplies]
    assert names == ["trending", "favourite_authors", "favourite_topics"]
    with pytest.raises(ConfigError, match="random is no funnel"):
        make_policy("random", world, ["seed=1"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("value: {expression: p(liked)}", "needs one source"),
        ("sources: {trendy: {}}", "trendy"),
        ("sources: {precomputed: {}}\nvalue: {expression: p(liked)}", "precomputed alone"),
        (
            "sources: {fresh: {}, precomputed: {}}\nvalue: {expression: p(liked)}",
            "`recsys precompute` makes for a service",
        ),
        ("sources: {fresh: {quota: 0}}", "quota"),
        (
            "sources: {fresh: {}}\nvalue: {expression: p(liked)}\nexploration: {source: trending}",
            "no such source",
        ),
        ("sources: {fresh: {}}\nvalue: {expression: p(likd)}", "did you mean liked"),
        (
            "rerank: {apart: [{column: no_}]}\nsources: {fresh: {}}\nvalue: {expression: p(liked)}",
            "column no_",
        ),
        ("sources: {fresh: {}}", "expression"),
    ],
)
def test_a_funnel_that_cannot_be_is_refused(
    world: World, tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        policy = make_policy(str(file), world)
        visits = world.visits(world.log_end, world.log_end + HOUR)
        next(iter(play(world, policy, visits, TICK)))


def test_a_user_without_anything_to_show_gets_an_empty_list(world: World) -> None:
    visits = world.visits(world.log_end, world.log_end + 12 * HOUR)
    none = replace(
        config(), filters=replace(config().filters, max_age_hours=1e-6), exploration=None
    )
    for tick in play(world, FunnelPolicy(world, none), visits, TICK):
        assert len(tick.shown) == 0
