"""A funnel with a cache that is played: what it saves, and that what users see stays sound."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.core.composition import load
from recsys.core.errors import ConfigError
from recsys.core.paths import conf_dir
from recsys.data.simulator.world.play import Requests as Asked
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.seen import SeenItems
from recsys.data.simulator.world.world import Visits, World
from recsys.evaluation.paired import Bootstrap
from recsys.online.compare import OnlineMetric, compared, played
from recsys.online.funnel import FunnelPolicy
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.metrics import UserSums
from recsys.online.policies import make_policy
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.cache.stores import MemoryStore
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig

TICK = 300_000


def policy(world: World, *changes: str) -> FunnelPolicy:
    file = conf_dir() / "funnel" / "explore.yaml"
    return FunnelPolicy(world, load(file, FunnelConfig, list(changes)))


def visits(world: World) -> Visits:
    return world.visits(world.log_end, world.end, 50)


@pytest.fixture(scope="module")
def without(world: World) -> UserSums:
    return played(world, policy(world), visits(world), TICK, 6.0)


def compare(world: World, without: UserSums, *changes: str) -> dict[str, OnlineMetric]:
    sums = played(world, policy(world, *changes), visits(world), TICK, 6.0)
    return {one.name: one for one in compared(sums, without, Bootstrap(resamples=50)).metrics}


def test_a_cache_for_no_time_is_none(world: World, without: UserSums) -> None:
    found = compare(world, without, "cache.policy=stale", "cache.max_age_hours=0")
    for name, metric in found.items():
        of_the_clock = name in ("latency_ms", "processor_ms")
        if not of_the_clock and not name.startswith("end_to_end"):  # of no latencies
            assert metric.difference.value == 0
    assert found["cached_share"].policy.value == 0
    assert found["pairs_scored"].policy.value == 100


@pytest.mark.parametrize("name", ["stale", "decay", "adjusted", "list"])
def test_a_cache_saves_pairs_and_shows_nothing_that_was_seen(
    world: World, without: UserSums, name: str
) -> None:
    changes = f"cache.policy={name}", "cache.max_age_hours=12"
    made = compare(world, without, *changes)
    found = {name: one.policy.value for name, one in made.items()}
    assert 0 < found["pairs_scored"] < 95
    assert 0.05 < found["cached_share"] < 1
    if name != "list":  # of a last list fewer are left
        assert found["pairs_scored"] == pytest.approx(100 * (1 - found["cached_share"]))
    assert found["refused_per_session"] == 0


def test_samples_are_counted_as_scored_and_change_no_list(world: World) -> None:
    lists, pairs = [], []
    for share in (0, 1):
        made = policy(world, "cache.policy=stale", f"cache.sample_share={share}")
        ticks = list(play(world, made, visits(world), TICK))
        lists.append(np.concatenate([tick.shown.item for tick in ticks]))
        answers = [tick.answer for tick in ticks]
        pairs.append(sum((one.pairs_scored + one.pairs_sampled).sum() for one in answers))
    assert (lists[0] == lists[1]).all()
    assert pairs[0] < pairs[1] == 100 * len(visits(world))


def test_a_cache_that_cannot_be_is_refused(world: World) -> None:
    for change, sentence in {
        "cache.policy=smart": "one of none, list, stale, decay, adjusted, user_side",
        "cache.policy=user_side": "ranker makes of a user once and for all candidates; second",
        "cache.max_age_hours=-1": "max_age_hours",
        "cache.sample_share=2": "sample_share",
        "cache.T1=3": "T1",
    }.items():
        with pytest.raises(ConfigError, match=sentence):
            make_policy("explore", world, [change])
    make_policy("explore", world, ["cache.policy=stale", "cache.max_age_hours=8766"])


def test_what_another_scorer_has_scored_is_not_used(world: World) -> None:
    known, store = PlayedKnowledge(world), MemoryStore()
    tick = next(iter(play(world, policy(world), visits(world), TICK)))
    moment = int(tick.visits.time[0])
    user = np.arange(1, 6)
    alive = world.alive(moment, moment + TICK)
    seen = SeenItems(world.items, len(world.users))
    known.at(Asked(user, np.full(5, moment), np.zeros(5, np.int8), alive, seen))
    of = Requests(user, user, np.full(5, moment), {"region": known.group(user)})
    cached = []
    for scorer in ("rates", "rates", "random", "random", "rates"):
        file = conf_dir() / "funnel" / "explore.yaml"
        changes = ["cache.policy=stale", f"second.scorer={scorer}"]
        config = load(file, FunnelConfig, changes)
        funnel = build_funnel(config, known, world.tasks, store=store)
        cached.append(int(funnel.run(of, 24).candidates.cached.sum()))
    assert cached == [0, 500, 0, 500, 0]
