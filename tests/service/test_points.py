"""Operating points, of a running service and by load; its cache in a Redis that goes and comes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from recsys.cli.main import invoke
from recsys.service.config import LimitsConfig, LoadConfig, ServeConfig
from recsys.service.messages import Recommend
from recsys.service.worker import Worker
from tests.embeddings.stores import redis_server
from tests.service.small_service import Running
from tests.service.test_worker import Scores, with_second

POINTS = "points: {calm: {policy: stale, max_age_hours: 6}, rush: {policy: list}}\n"


@pytest.fixture
def points(tmp_path: Path) -> Path:
    path = tmp_path / "operating_points.yaml"
    path.write_text(POINTS)
    return path


def at(service: Running) -> dict[str, float]:
    """How many workers are at each operating point."""
    lines = service.client.get("/metrics").text.splitlines()
    found = [line.split() for line in lines if line.startswith("recsys_operating_point{")]
    return {name.split('"')[1]: float(number) for name, number in found}


def candidates(service: Running, user: int) -> list[dict[str, Any]]:
    asked = service.recommend(user, k=3)
    assert len(asked["items"]) == 3 and asked["fallback"] is None
    found = service.client.get(f"/explain/{asked['request']}").json()
    rows: list[dict[str, Any]] = found["candidates"]
    return rows


def cached(service: Running, user: int) -> bool:
    return any(row.get("gap_hours") is not None for row in candidates(service, user))


def test_all_workers_go_over_and_share_a_cache_that_may_be_gone(
    prepared: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis_server(tmp_path) as url:
        own = (f"points={points}", f"feed={url}?socket_timeout=5")
        service = Running(prepared, tmp_path / "state", *own)
        try:
            service.until(lambda: at(service) == {"": 2.0, "calm": 0.0, "rush": 0.0})
            assert not cached(service, 1) and not cached(service, 1)
            answer = service.client.post("/operating-point", json={"point": "calm"})
            assert answer.json() == {"point": "calm", "points": ["calm", "rush"]}
            service.until(lambda: at(service) == {"": 0.0, "calm": 2.0, "rush": 0.0})
            assert service.client.get("/health").json()["operating_point"] == "calm"
            assert service.client.get("/funnel").json()["settings"]["cache"]["policy"] == "stale"
            assert not cached(service, 2)
            assert all(cached(service, 2) for _ in range(6))  # whoever has scored before
            refused = service.client.post("/operating-point", json={"point": "busy"})
            assert refused.status_code == 400
            assert "it has calm, rush" in refused.json()["error"]
            assert invoke(["service", "point", f"state={service.state}", "point=busy"]) == 2
            assert "it has calm, rush" in capsys.readouterr().err
        except BaseException:
            service.kill()
            raise
    try:  # Redis is gone
        assert not cached(service, 2)
        assert 'recsys_missed_total{stage="cache"}' in service.client.get("/metrics").text
        with redis_server(tmp_path, port=urlsplit(url).port):
            service.until(lambda: cached(service, 2))
        assert invoke(["service", "point", f"state={service.state}"]) == 0
        service.until(lambda: at(service)[""] == 2.0)
        service.stop()
        assert service.process.returncode == 0
    finally:
        service.kill()


def test_a_point_is_taken_up_by_load_and_left_when_fewer_wait(
    prepared: Path, points: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    given = [f"dataset={prepared}", "funnel=explore", f"points={points}"]
    assert invoke(["service", "swap", f"state={state}", *given]) == 0
    load = LoadConfig(point="calm", above=0.5, seconds=0.5)
    limits = LimitsConfig(waiting=4, wait_ms=20_000)
    worker = Worker(ServeConfig(state=str(state), clock="log", limits=limits, load=load))
    with_second(worker, Scores(seconds=0.05))

    async def rush() -> list[str | None]:
        watching = asyncio.create_task(worker.watch())
        found: list[str | None] = [worker.served.point]
        await asyncio.gather(*(worker.recommend(Recommend(user=one)) for one in range(4)))
        deadline = time.monotonic() + 30
        for wanted in ("calm", None):
            while worker.served.point != wanted:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            found.append(wanted)
        watching.cancel()
        return found

    assert asyncio.run(rush()) == [None, "calm", None]
    worker.close()
    worker.served.dataset.live.close()
    assert {path.name for path in (state / "ledger").iterdir()} == {"000001", "000001.calm"}


def test_a_point_that_cannot_be_is_refused(
    prepared: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["service", "swap", f"state={tmp_path / 'state'}", f"dataset={prepared}"]
    points.write_text("points: {calm: {policy: adjusted, adjuster: nowhere.json}}\n")
    assert invoke([*asked, "funnel=explore", f"points={points}"]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    points.write_text("points: {calm: {polcy: stale}}\n")
    assert invoke([*asked, "funnel=explore", f"points={points}"]) == 2
    assert "polcy" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
