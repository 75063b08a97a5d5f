"""Two services, as of two machines, whose events lie in one Redis that is killed and back again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import redis

from tests.embeddings.stores import redis_server
from tests.service.small_service import Running

KEPT = ("--appendonly", "yes", "--appendfsync", "always")


def test_what_one_is_told_the_other_knows_and_nothing_acknowledged_is_lost(
    prepared: Path, tmp_path: Path
) -> None:
    services: list[Running] = []
    try:
        with redis_server(tmp_path, *KEPT) as url:
            settings = (f"events={url}", "workers=1")
            for name in ("one", "other"):
                services.append(Running(prepared, tmp_path / name, *settings))
            one, other = services
            first, second = other.recommend(5, k=2)["items"]
            assert one.report({"user": 5, "item": first})["taken"] == 1
            assert first not in other.recommend(5, k=50)["items"]
            assert one.client.post("/items", json=[{"item": 777_777}]).json()["taken"] == 1
            assert other.client.post("/items", json=[{"item": 777_777}]).json()["taken"] == 0
            assert other.client.delete("/items/777777").status_code == 200
            server = redis.Redis(port=urlsplit(url).port).info("server")
            os.kill(server["process_id"], signal.SIGKILL)
        seen = {"user": 5, "item": second}
        for service in services:  # what is known stays known
            assert first not in service.recommend(5, k=50)["items"]
            refused = service.client.post("/events", json=[seen])
            assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
            assert "No Redis server answers" in refused.json()["error"]
        with redis_server(tmp_path, *KEPT, port=urlsplit(url).port):
            assert other.report(seen)["taken"] == 1
            one.until(lambda: second not in one.recommend(5, k=50)["items"])
            one.kill()
            services[0] = Running(prepared, tmp_path / "one", *settings)
            assert not {first, second} & set(services[0].recommend(5, k=50)["items"])
    finally:
        for service in services:
            service.kill()
