"""Two services, as of two machines, whose events lie in one Redis that is killed and back again."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import redis

from recsys.cli.main import invoke
from recsys.service.app import make_app
from recsys.service.config import ServeConfig
from recsys.service.worker import Worker
from tests.embeddings.stores import redis_server

KEPT = ("--appendonly", "yes", "--appendfsync", "always")


class Service:
    """A service of one worker in this process, over a state of its own."""

    def __init__(self, prepared: Path, state: Path, url: str) -> None:
        given = [f"state={state}", f"dataset={prepared}", "funnel=explore"]
        assert invoke(["service", "swap", *given]) == 0
        config = ServeConfig(state=str(state), clock="log", events=url)
        self.worker, app = Worker(config), make_app(config)
        app.state.worker = self.worker
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://service"
        )

    async def listed(self, user: Any, k: int = 50) -> list[Any]:
        response = await self.client.post("/recommend", json={"user": user, "k": k})
        assert response.status_code == 200, response.text
        found: list[Any] = response.json()["items"]
        return found

    async def said(self, path: str, *rows: dict[str, Any]) -> int:
        response = await self.client.post(path, json=list(rows))
        assert response.status_code == 200, response.text
        taken: int = response.json()["taken"]
        return taken

    def close(self) -> None:
        self.worker.close()
        self.worker.served.dataset.live.close()


def test_what_one_is_told_the_other_knows_and_nothing_acknowledged_is_lost(
    prepared: Path, tmp_path: Path
) -> None:
    asyncio.run(shared(prepared, tmp_path))


async def shared(prepared: Path, folder: Path) -> None:
    with redis_server(folder, *KEPT) as url:
        one, other = (Service(prepared, folder / name, url) for name in ("one", "other"))
        user = one.worker.served.some_users()[4]
        first, second = await other.listed(user, 2)
        told = {"user": user, "item": first, "timestamp": one.worker.served.now()}
        assert await one.said("/events", told) == 1
        assert first not in await other.listed(user)
        assert await other.said("/events", told) == 0  # it is known
        assert await one.said("/items", {"item": 777_777}) == 1
        assert (await other.client.delete("/items/777777")).status_code == 200
        listed = (await other.listed(user, 1))[0]
        assert (await one.client.delete(f"/items/{listed}")).status_code == 200
        for service in (one, other):
            assert not {first, listed} & set(await service.listed(user))
        server = redis.Redis(port=urlsplit(url).port).info("server")
        os.kill(server["process_id"], signal.SIGKILL)
    for service in (one, other):
        # what is known stays known, and nothing is acknowledged that is not written
        assert not {first, listed} & set(await service.listed(user))
        for method, path, body in (
            ("POST", "/events", [{"user": user, "item": second}]),
            ("POST", "/items", [{"item": 888_888}]),
            ("DELETE", f"/items/{second}", None),
        ):
            refused = await service.client.request(method, path, json=body)
            assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
            assert "No Redis server answers" in refused.json()["error"]
    with redis_server(folder, *KEPT, port=urlsplit(url).port):
        assert await other.said("/events", {"user": user, "item": second}) == 1
        assert second not in await other.listed(user)
        one.close()
        again = Service(prepared, folder / "one", url)
        assert not {first, second, listed} & set(await again.listed(user))
        assert await again.said("/events", told) == 0
        for service in (again, other):
            service.close()
