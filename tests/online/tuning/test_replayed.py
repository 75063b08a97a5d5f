"""Lists of a ledger made again: as they were, and with other weights and rules."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.composition import load
from recsys.core.errors import DataError
from recsys.core.paths import conf_dir
from recsys.data.simulator.world.play import play
from recsys.data.simulator.world.world import World
from recsys.online.funnel import FunnelPolicy
from recsys.online.knowledge import PlayedKnowledge
from recsys.online.tuning.config import Range
from recsys.online.tuning.replayed import NotedCandidates, Replay, read_noted
from recsys.online.tuning.space import Space
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import FunnelConfig
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig, noted

DEPTH = 4.0


@pytest.fixture(scope="module")
def played_funnel() -> FunnelConfig:
    declared = load(conf_dir() / "funnel" / "explore.yaml", FunnelConfig)
    return replace(declared, exploration=None)


@pytest.fixture(scope="module")
def ledger(
    world: World, played_funnel: FunnelConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("replayed") / "ledger"
    visits = world.visits(world.log_end, world.end, users=60)
    policy = FunnelPolicy(world, played_funnel)
    opened = Ledger(folder, Described.of(policy.funnel), LedgerConfig(patient=True))
    with closing(opened) as policy.ledger:
        assert sum(len(tick.visits) for tick in play(world, policy, visits, 300_000))
    return folder


def replay_of(world: World, candidates: NotedCandidates, funnel: FunnelConfig) -> Replay:
    known = PlayedKnowledge(world, funnel.group)
    return Replay(known, world.tasks, candidates, funnel, DEPTH, world.world.viewing.items)


def test_the_funnel_as_it_is_gives_the_lists_that_are_noted(
    world: World, ledger: Path, played_funnel: FunnelConfig
) -> None:
    candidates = read_noted(ledger, 10**6)
    replay = replay_of(world, candidates, played_funnel)
    assert replay.now["kept"] == pytest.approx(1.0)
    lists = {
        int(number): one.tolist()
        for of, outcome in noted(ledger)
        for number, one in zip(of.number, outcome.lists(world.world.viewing.items), strict=True)
    }
    again = replay._run(played_funnel)
    for number, count in enumerate(candidates.requests.number.tolist()):
        mine = again.request == number
        order = np.argsort(again.position[mine & (again.position > 0)])
        found = again.item[mine & (again.position > 0)][order].tolist()
        assert found == [item for item in lists[count] if item >= 0]
    assert len(lists) == len(candidates.requests)


def test_a_task_that_weighs_more_is_predicted_higher(
    world: World, ledger: Path, played_funnel: FunnelConfig
) -> None:
    replay = replay_of(world, read_noted(ledger, 30), played_funnel)
    terms = ("p(liked)", "p(see_less)", "rerank.apart[0].places", "rerank.at_most[0].share")
    ends = (Range(0, 1e3), Range(0, 1e3), Range(2, 20), Range(0.05, 1))
    space = Space(played_funnel, dict(zip(terms, ends, strict=True)))

    def metrics(values: Mapping[str, float]) -> Mapping[str, float]:
        return replay.metrics(space.funnel_with(values))

    assert metrics({"p(liked)": 1e3})["liked"] > replay.now["liked"]
    assert metrics({"p(see_less)": 1e3})["see_less"] < replay.now["see_less"]
    apart = {"rerank.apart[0].places": 20}
    assert metrics(apart)["different_authors"] > replay.now["different_authors"]
    spread = {"rerank.at_most[0].share": 0.05}
    assert metrics(spread)["different_topics"] > replay.now["different_topics"]
    assert 0 < metrics(spread)["kept"] < 1


def test_metrics_of_two_lists_by_hand(world: World, played_funnel: FunnelConfig) -> None:
    names = [task.name for task in world.tasks if task.name != "watch_time"]
    predictions = np.zeros((3, len(world.tasks)))
    predictions[:, names.index("liked")] = [0.1, 0.3, 0.2]
    moment = int(world.log_end)
    requests = Requests(
        np.arange(2), np.array([5, 6]), np.array([moment, moment]), {"region": np.array([1, 1])}
    )
    candidates = NotedCandidates(requests, np.array([2, 1]), np.array([7, 8, 7]), predictions)
    found = replay_of(world, candidates, played_funnel).now
    # items 8, 7 of one request and 7 of the other, whose places are reached with 1, 3/4 and 1
    assert found["liked"] == pytest.approx((0.3 + 0.75 * 0.1 + 0.2) / 2.75)
    hours = (moment - (world.items.published[[8, 7, 7]] + world.start)) / 3_600_000
    assert found["age_hours"] == pytest.approx((hours @ [1, 0.75, 1]) / 2.75)


def test_requests_are_spread_over_a_ledger(ledger: Path, tmp_path: Path) -> None:
    whole, some = read_noted(ledger, 10**6), read_noted(ledger, 3)
    ends = (some.requests.number[0], some.requests.number[-1])
    assert ends == (whole.requests.number.min(), whole.requests.number.max())
    assert len(some.requests) == 3 and some.lengths.sum() == len(some.predictions)
    with closing(Ledger(tmp_path / "none", Described(("fresh",), ("mix",), ("liked",)))):
        pass
    with pytest.raises(DataError, match="holds no candidate"):
        read_noted(tmp_path / "none", 3)
