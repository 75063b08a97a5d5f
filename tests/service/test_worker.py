"""A worker in this process: lists made before, stages that fail or are slow, NaN, limits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from recsys.cli.main import invoke
from recsys.service import metrics
from recsys.service.config import LimitsConfig, ServeConfig
from recsys.service.lane import FullError, Lane, LateError
from recsys.service.messages import Event, Recommend
from recsys.service.worker import Worker
from recsys.serving.funnel.candidates import mix
from recsys.serving.funnel.funnel import Outcome
from recsys.serving.funnel.ledger import Described

LISTED = 5


@pytest.fixture(scope="module")
def state(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a service that has served the funnel, with lists of the first users."""
    folder = tmp_path_factory.mktemp("worker") / "state"
    funnel = folder.with_name("counted.yaml")
    funnel.write_text(
        "sources: {trending: {quota: 100}}\n"
        "first: {scorer: rates, candidates: 100}\n"
        "value: {expression: 1 * p(liked) + 0.01 * watch_time}\n"
    )
    assert (
        invoke(["service", "swap", f"state={folder}", f"dataset={prepared}", f"funnel={funnel}"])
        == 0
    )
    assert invoke(["precompute", f"state={folder}", "clock=log", f"users={LISTED}", "k=30"]) == 0
    return folder


@pytest.fixture
def worker(state: Path) -> Iterator[Worker]:
    limits = LimitsConfig(wait_ms=400.0)
    found = Worker(ServeConfig(state=str(state), clock="log", limits=limits))
    yield found
    close(found)


class Scores:
    """A stage that fails, takes its time, or says NaN."""

    name = "bad"

    def __init__(self, seconds: float = 0.0, fails: bool = False) -> None:
        self._seconds, self._fails = seconds, fails

    def score(self, requests: object, lengths: np.ndarray, item: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds)
        if self._fails:
            raise RuntimeError("no more")
        return np.full((len(item), 10), np.nan)


def with_second(worker: Worker, scorer: Scores) -> None:
    funnel = worker.served.funnel
    second = replace(funnel.second, scorer=scorer, deadline_ms=None)
    worker.served.funnel = replace(funnel, second=second)


def ask(worker: Worker, user: int | str, k: int = 6) -> tuple[str | None, list]:
    answer = asyncio.run(worker.recommend(Recommend(user=user, k=k)))
    return answer.fallback, answer.items


def raw(worker: Worker, index: int) -> int | str | None:
    return worker.served.users.raw(np.array([index]))[0]


def test_a_list_made_before_is_given_where_the_second_stage_fails(worker: Worker) -> None:
    listed, other = raw(worker, LISTED), raw(worker, LISTED + 1)
    usual = {user: ask(worker, user) for user in (listed, other)}
    assert usual[listed][0] is None
    with_second(worker, Scores(fails=True))
    reason, items = ask(worker, listed)
    assert (reason, items) == ("second", usual[listed][1])
    event = Event(user=listed, item=items[0], timestamp=worker.served.now())
    assert asyncio.run(worker.report([event])).taken == 1
    assert ask(worker, listed)[1][:5] == items[1:]  # unseen by now
    reason, items = ask(worker, other)  # the order of the first stage is all there is
    assert reason is None and len(items) == 6


def test_a_stage_that_takes_too_long_holds_nobody_up(worker: Worker) -> None:
    user = raw(worker, 2)
    with_second(worker, Scores(seconds=0.8))
    for _ in range(2):
        began = time.monotonic()
        reason, items = ask(worker, user, k=40)
        assert reason == "late" and len(items) == 40 == len(set(items))
        assert time.monotonic() - began < 10
    reason, popular = ask(worker, "nobody", k=40)
    assert reason == "late" and len(popular) == 40
    assert set(items[:20]) != set(popular[:20])


def test_nan_is_no_score(worker: Worker) -> None:
    with_second(worker, Scores())
    answer = asyncio.run(worker.recommend(Recommend(user=raw(worker, 7), k=6)))
    assert answer.fallback is None and answer.items == []
    ends = {row["ended"] for row in worker.explain(answer)["candidates"]}
    assert ends == {"second"}


def test_scores_are_those_of_the_value_model(worker: Worker) -> None:
    answer = asyncio.run(worker.recommend(Recommend(user=raw(worker, 8), k=9)))
    rows = worker.explain(answer)["candidates"][:9]
    value = [row["liked"] + 0.01 * row["watch_time"] for row in rows]
    assert answer.scores == pytest.approx(value, rel=1e-5) and answer.generation == 1
    assert answer.scores == sorted(answer.scores, reverse=True)
    assert not any(math.isnan(one) for one in answer.scores)


def test_the_cache_of_a_funnel_outlives_a_worker(prepared: Path, tmp_path: Path) -> None:
    state, funnel = tmp_path / "state", tmp_path / "cached.yaml"
    funnel.write_text(
        "sources: {trending: {quota: 100}}\nvalue: {expression: p(liked)}\ncache: {policy: stale}\n"
    )
    served = [f"dataset={prepared}", f"funnel={funnel}"]
    assert invoke(["service", "swap", f"state={state}", *served]) == 0
    shares = []
    for _ in range(2):
        worker = Worker(ServeConfig(state=str(state), clock="log"))
        for user in (3, 3, 4):
            outcome = asyncio.run(worker.recommend(Recommend(user=raw(worker, user), k=6))).outcome
            assert outcome is not None and not outcome.missed
            shares.append(outcome.candidates.cached.mean())
        close(worker)
    assert shares[0] == shares[2] == 0 and shares[1] > 0.5 and shares[3] > 0.5


def test_lists_made_before_are_a_source(prepared: Path, tmp_path: Path) -> None:
    state, funnel = tmp_path / "state", tmp_path / "listed.yaml"
    funnel.write_text(
        "sources: {trending: {quota: 5}, precomputed: {quota: 10}}\nvalue: {expression: p(liked)}\n"
    )
    asked = [f"state={state}", f"dataset={prepared}", f"funnel={funnel}"]
    assert invoke(["service", "swap", *asked]) == 0
    worker = Worker(ServeConfig(state=str(state), clock="log"))
    listed, other = raw(worker, LISTED), raw(worker, LISTED + 1)
    assert found_before(worker, listed) == []
    close(worker)
    made = ["precompute", f"state={state}", "clock=log", f"users={LISTED}", "k=30"]
    assert invoke([*made, "changes=[sources.trending.quota=100]"]) == 0
    worker = Worker(ServeConfig(state=str(state), clock="log"))
    whole = worker.served.stored.of(LISTED)
    assert len(whole) == 30  # trending alone has five
    before = found_before(worker, listed)
    assert before == whole[:10].tolist()
    event = Event(user=listed, item=worker.served.items.raw(whole[:1])[0])
    assert asyncio.run(worker.report([event])).taken == 1
    assert found_before(worker, listed) == whole[1:11].tolist()
    nothing = {"name": "recsys_found_nothing_total", "labels": {"stage": "precomputed"}}
    counted = REGISTRY.get_sample_value(**nothing)
    assert found_before(worker, other) == []
    assert REGISTRY.get_sample_value(**nothing) == counted + 1
    together = worker.served.funnel.supplies[1].source.find(
        worker.served.known.ask(np.arange(2), np.array([LISTED, LISTED + 1]), np.full(2, 2**42))
    )
    assert together.lengths.tolist() == [10, 0] and together.item.tolist() == whole[1:11].tolist()
    close(worker)
    # another generation has lists of its own, and has none yet
    funnel.write_text(funnel.read_text().replace("{quota: 5}", "{quota: 6}"))
    assert invoke(["service", "swap", f"state={state}", f"funnel={funnel}"]) == 0
    worker = Worker(ServeConfig(state=str(state), clock="log"))
    assert found_before(worker, listed) == []
    close(worker)


def close(worker: Worker) -> None:
    worker.close()
    worker.served.dataset.live.close()


def found_before(worker: Worker, user: int | str) -> list[int]:
    """The items that the source of precomputed lists has found for a user."""
    answer = asyncio.run(worker.recommend(Recommend(user=user, k=6)))
    assert answer.outcome is not None and not answer.outcome.missed
    of = answer.outcome.candidates
    items = worker.served.dataset.live.later.found(of.item)
    listed = items[of.sources >> 1 & 1 == 1].tolist()
    order = [] if worker.served.stored is None else worker.served.stored.of(LISTED).tolist()
    return sorted(listed, key=order.index)


def test_a_lane_is_bounded_and_forgets_who_is_late() -> None:
    async def tried() -> None:
        lane = Lane("tried", 2)
        slow = [asyncio.ensure_future(lane.run(lambda: time.sleep(0.2))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await lane.run(lambda: 1)
        assert await lane.run(lambda: 2, bounded=False) == 2
        await asyncio.gather(*slow)
        done = []
        with pytest.raises(LateError):
            await lane.run(lambda: time.sleep(0.2) or done.append(1), seconds=0.01)
        with pytest.raises(LateError):  # it had not begun, and never does
            await lane.run(lambda: done.append(2), seconds=0.01)
        assert await lane.run(lambda: 3) == 3
        await asyncio.sleep(0)
        assert done == [1] and lane.length == 0
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 / 0)
        lane.close()

    asyncio.run(tried())


def test_what_is_kept_of_users_is_counted() -> None:
    before = [metrics.SIDES.labels(name)._value.get() for name in ("kept", "made")]
    outcome = Outcome(mix([], [], 3), {}, {}, sides_kept=np.array([True, False, True]))
    metrics.StageMetrics(Described((), ("mix",), ())).add(outcome)
    after = [metrics.SIDES.labels(name)._value.get() for name in ("kept", "made")]
    assert after == [before[0] + 2, before[1] + 1]
