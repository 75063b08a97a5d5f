"""Lists made when users open the app: who gets one, that it is shown once, and what was in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from recsys.cli.main import invoke
from recsys.core.errors import ConfigError, DataError
from recsys.service import metrics
from recsys.service.advance import Decision
from recsys.service.config import LimitsConfig, ServeConfig
from recsys.service.messages import Event, Open, Recommend
from recsys.service.openings import Openings, Waiting
from recsys.service.worker import Worker
from recsys.serving.funnel.ledger import explain
from recsys.serving.funnel.prefetch.habits import FEATURES
from recsys.serving.funnel.prefetch.prefetcher import Prefetcher
from tests.service.small_service import Running

MINUTE = 60_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a prefetcher: who is notified visits, and who has an old device waits."""
    import lightgbm

    rng = np.random.default_rng(0)
    features = rng.random((2_000, len(FEATURES))).astype(np.float32)
    for name in ("notified", "device", "network"):
        features[:, FEATURES.index(name)] = rng.integers(0, 2, len(features))
    visit, old = (features[:, FEATURES.index(name)] for name in ("notified", "device"))

    def grown(objective: str, target: np.ndarray) -> Any:
        data = lightgbm.Dataset(features, target, free_raw_data=False)
        settings = {"objective": objective, "verbose": -1, "num_threads": 1, "num_leaves": 4}
        return lightgbm.train(settings, data, 30)

    path = tmp_path_factory.mktemp("prefetcher") / "models.json"
    names = {"device": ["new", "old"], "network": ["wifi", "mobile"]}
    wait = grown("regression", np.log(np.where(old == 1, 900.0, 100.0)))
    Prefetcher(grown("binary", visit), wait, names).save(path)
    return path


def state_of(folder: Path, prepared: Path, models: Path, points: str | None = None) -> Path:
    """Of a service that makes lists in advance."""
    funnel, given = folder / "ahead.yaml", []
    funnel.write_text(
        "sources: {trending: {quota: 100}}\nvalue: {expression: p(liked)}\n"
        f"cache: {{policy: stale, prefetch: {{models: {models}}}}}\n"
    )
    if points is not None:
        (folder / "points.yaml").write_text(points)
        given = [f"points={folder / 'points.yaml'}"]
    asked = [f"state={folder / 'state'}", f"dataset={prepared}", f"funnel={funnel}", *given]
    assert invoke(["service", "swap", *asked]) == 0
    return folder / "state"


@pytest.fixture
def worker(prepared: Path, models: Path, tmp_path: Path) -> Iterator[Worker]:
    points = "points: {rush: {prefetch: {models: null}}, eager: {prefetch: {visit: 0.01}}}\n"
    state = state_of(tmp_path, prepared, models, points)
    limits = LimitsConfig(wait_ms=20_000.0)
    found = Worker(ServeConfig(state=str(state), clock="log", limits=limits))
    yield found
    found.close()
    found.served.dataset.live.close()


def counted(outcome: str) -> tuple[float, float]:
    """Lists, and pairs, of this process."""
    both = (metrics.ADVANCE, metrics.ADVANCE_PAIRS)
    return tuple(one.labels(outcome)._value.get() for one in both)  # type: ignore[return-value]


def raw(worker: Worker, index: int) -> int | str:
    found = worker.served.users.raw(np.array([index]))[0]
    assert found is not None
    return found


async def go_over(worker: Worker, point: str) -> None:
    worker.config = replace(worker.config, limits=LimitsConfig(wait_ms=1.0))
    await worker._go_over(point)
    worker.config = replace(worker.config, limits=LimitsConfig(wait_ms=20_000.0))


async def opened(worker: Worker, asked: Open) -> Decision:
    """And wait for the list."""
    decision = await worker.opened(asked)
    await asyncio.gather(*worker._advance._making.values())
    return decision


def test_a_list_is_made_for_who_is_likely_to_come_and_to_wait(worker: Worker) -> None:
    user, now = raw(worker, 3), worker.served.now()
    told = {}
    for notified in (False, True):
        for device in ("new", "old", "unheard of", None):
            asked = Open(raw(worker, 9), 6, now, notified, device)
            told[notified, device] = asyncio.run(opened(worker, asked))
    assert [key for key, one in told.items() if one.listed] == [(True, "old")]
    likely, unlikely = told[True, "old"], told[False, "old"]
    assert likely.visit > 0.9 > 0.1 > unlikely.visit  # type: ignore[operator]
    assert likely.wait_ms == pytest.approx(900, rel=0.2)
    nobody = asyncio.run(worker.opened(Open("nobody", notified=True, device="old")))
    assert not nobody.listed and nobody.why == "the user is not known"

    made, shown = counted("made"), counted("shown")

    async def comes() -> list[Any]:
        plain = {"cache.policy": "none"}
        fresh = await worker.recommend(Recommend(user, 6, now, changes=plain))
        asked = Open(user, 8, now, True, "old")
        visit = threading.Event()  # somebody else's, that is being answered meanwhile
        answered = asyncio.create_task(worker._funnel.run(visit.wait))
        both = [await worker.opened(asked) for _ in range(2)]
        assert [one.why for one in both] == [None, "a list is being made"]
        visit.set()
        await answered
        first = await worker.recommend(Recommend(user, 6, now + 2 * MINUTE))
        return [fresh, first, await worker.recommend(Recommend(user, 6, now + 2 * MINUTE))]

    fresh, first, second = asyncio.run(comes())
    assert [one.in_advance for one in (fresh, first, second)] == [False, True, False]
    assert first.items == fresh.items and first.scores == fresh.scores
    assert counted("made") == (made[0] + 1, made[1] + 100)
    assert counted("shown") == (shown[0] + 1, shown[1] + 100)
    rows = worker.explain(first)
    assert rows["moment"] == now + 2 * MINUTE
    listed = [row for row in rows["candidates"] if row["ended"] is None]
    assert [row["item"] for row in listed] == first.items
    assert [row["gap_hours"] for row in listed] == pytest.approx([2 / 60] * 6)
    # what the visit after it was shown is of the cache that the list in advance has filled
    assert second.outcome is not None and second.outcome.candidates.cached.sum() == 100
    folder, number = worker._state.ledger(1), first.number
    worker._serving.ledger.close()
    noted = explain(folder, number)
    assert noted["position"].drop_nulls().to_list() == [1, 2, 3, 4, 5, 6]
    worker._serving = worker._begun(worker.served)


def test_what_was_seen_since_is_left_out_and_what_is_old_is_in_vain(worker: Worker) -> None:
    user, other = raw(worker, 4), raw(worker, 5)
    now, wasted = worker.served.now(), counted("wasted")

    async def comes() -> tuple[Any, Any]:
        for one in (user, other):
            assert (await opened(worker, Open(one, 6, now, True, "old"))).listed
            again = await worker.opened(Open(one, 6, now + MINUTE, True, "old"))
            assert not again.listed and again.why == "a list waits already"
        kept = await worker.recommend(Recommend(user, 6, now, draws=5))
        event = Event(user=user, item=kept.items[1], timestamp=now + 1)
        assert (await worker.report([event])).taken == 1
        later = await worker.recommend(Recommend(user, 6, now + 2))
        assert later.in_advance and later.items == [kept.items[0], *kept.items[2:]]
        ends = {row["item"]: row["ended"] for row in worker.explain(later)["candidates"]}
        assert ends[kept.items[1]] == "seen"
        late = await worker.recommend(Recommend(other, 6, now + 31 * MINUTE))
        # its clock has gone on
        event = Event(user=other, item=late.items[0], timestamp=now + 31 * MINUTE)
        await worker.report([event])
        await worker.now()
        await worker._advance.expire(worker.served)
        return late, await worker.recommend(Recommend(other, 6, now + MINUTE))

    late, after = asyncio.run(comes())
    assert not late.in_advance and not after.in_advance
    assert counted("wasted") == (wasted[0] + 1, wasted[1] + 100)


def test_an_operating_point_says_for_whom_lists_are_made(worker: Worker) -> None:
    user, now = raw(worker, 6), worker.served.now()
    unlikely = Open(user, 6, now, notified=False, device="old")

    async def comes() -> None:
        assert (await opened(worker, Open(user, 6, now, True, "old"))).listed
        await go_over(worker, "rush")
        rushed = await worker.opened(Open(user, 6, now, True, "old"))
        assert not rushed.listed and rushed.why == "no lists are made at this operating point"
        # a list of another point is none of this one's
        assert not (await worker.recommend(Recommend(user, 6, now))).in_advance
        assert (await worker.opened(unlikely)).listed is False
        await go_over(worker, "eager")
        another = raw(worker, 7)
        assert (await opened(worker, Open(another, 6, now, False, "old"))).listed
        assert (await worker.recommend(Recommend(another, 6, now))).in_advance

    asyncio.run(comes())


def test_visits_come_before_lists_in_advance(worker: Worker) -> None:
    declined = counted("declined")[0]
    worker.config = replace(worker.config, limits=LimitsConfig(waiting=1))
    worker._funnel.length += 1  # a visit is being answered
    asked = Open(raw(worker, 8), 6, worker.served.now(), True, "old")
    assert asyncio.run(opened(worker, asked)).listed
    worker._funnel.length -= 1
    assert counted("declined")[0] == declined + 1


def test_openings_are_kept_by_user_and_damage_is_a_sentence(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    waiting = Waiting(10, 20, 7, 5, "1 ", {"surface": "feed"}, b"body")
    with closing(Openings(tmp_path / "openings")) as openings:
        first = openings.opened(3, 10, none, True, waited_ms=400.0)[0]
        assert first[FEATURES.index("opens")] == 0
        assert first[FEATURES.index("waits_last")] == pytest.approx(np.log(400))
        assert openings.keep(3, waiting) is None
        assert openings.keep(3, waiting) == 7  # in the place of another one
        for k, where, context in ((6, "1 ", {"surface": "feed"}), (5, "2 ", {}), (5, "1 ", {})):
            assert openings.visited(3, 15, k, where, context) is None
        assert openings.visited(3, 21, 5, "1 ", {"surface": "feed"}) is None
        assert openings.waits(3, 20, "1 ") and not openings.waits(3, 21, "1 ")
        assert not openings.waits(4, 5, "1 ") and not openings.waits(3, 20, "2 ")
        assert openings.visited(3, 20, 5, "1 ", {"surface": "feed"}) == waiting
        assert openings.visited(3, 20, 5, "1 ", {"surface": "feed"}) is None
        for user in (1, 2, 5):
            openings.keep(user, msgspec.structs.replace(waiting, until=100 * user))
    with closing(Openings(tmp_path / "openings")) as openings:  # another process, later
        again = openings.opened(3, 10, np.array([10]), False)[0]
        assert again[FEATURES.index("opens")] == 1 and again[FEATURES.index("visits")] > 5
        assert again[FEATURES.index("engagements")] == 1
        assert openings.expire(250) == [7, 7] and openings.expire(250) == []
        assert openings.waits(5, 499, "1 ")
        with openings._folder.transaction(write=True) as transaction:
            for name in (b"app_lists", b"app_habits"):
                key = (5).to_bytes(8, "big")
                transaction.put(key, b"x" * 20, db=openings._folder.databases[name])
        with pytest.raises(DataError, match="remove the folder"):
            openings.visited(5, 1, 1, "", {})


def test_what_cannot_be_is_a_sentence(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "none"
    asked = ["service", "swap", f"state={folder}", f"dataset={prepared}", "funnel=explore"]
    assert invoke([*asked, "funnel.cache.prefetch.models=nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert not folder.exists()
    assert invoke(asked) == 0
    worker = Worker(ServeConfig(state=str(folder), clock="log"))
    with pytest.raises(ConfigError, match=r"cache\.prefetch\.models names no prefetcher"):
        asyncio.run(worker.opened(Open(raw(worker, 3))))
    worker.close()
    worker.served.dataset.live.close()


def test_any_worker_shows_a_list_once(prepared: Path, models: Path, tmp_path: Path) -> None:
    given = f"funnel.cache.prefetch.models={models}"
    service = Running(prepared, tmp_path / "state", given)
    try:
        users = service.client.get("/users").json()["users"][:6]
        opens = [{"user": one, "notified": True, "device": "old"} for one in users]
        for one in opens:
            told = service.client.post("/open", json=one).json()
            assert told["listed"] and told["visit"] > 0.5 and told["wait_ms"] > 400
        made = f'recsys_in_advance_lists_total{{outcome="made"}} {len(users)}.0'
        service.until(lambda: made in service.client.get("/metrics").text)
        for one in users:
            shown = [service.recommend(one)["in_advance"] for _ in range(3)]
            assert shown == [True, False, False]
        text = service.client.get("/metrics").text
        assert f'recsys_in_advance_pairs_total{{outcome="shown"}} {100 * len(users)}.0' in text
        long = service.client.post("/open", json={"user": users[0], "k": 10**6})
        assert long.status_code == 400 and "a list has at most" in long.json()["error"]
        service.stop()
        assert service.process.returncode == 0
    finally:
        service.kill()
