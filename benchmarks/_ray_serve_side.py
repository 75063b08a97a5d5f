"""The stages of a funnel behind Ray Serve: the peer of `recsys serve` in `recsys bench load`.

Each replica has the same generation of the same state and answers one request at a time, as a
worker does; Ray Serve brings the processes, the queue and HTTP. There is no ledger, there are no
fallbacks and no metrics of stages.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from recsys.cli.serve import configure
from recsys.service.generations import ServiceState
from recsys.service.messages import Recommend
from recsys.service.served import Served


class Stages:
    """One replica.

    Args:
        settings: of `recsys serve`.
    """

    def __init__(self, settings: list[str]) -> None:
        config = configure(settings)
        state = ServiceState(Path(config.state))
        self._served = Served.open(state.current(), config, state)
        self._served.refresh()
        self._asked = 0

    async def __call__(self, request: Request) -> Response:
        """A list, some users, or whether it is there."""
        if request.url.path == "/users":
            return _json({"users": self._served.some_users()})
        if request.url.path == "/ready":
            return _json({"ready": True})
        self._asked += 1
        asked = msgspec.json.decode(await request.body(), type=Recommend)
        found = self._served.answer(self._asked, asked)
        return _json({"items": found.items, "scores": found.scores, "fallback": None})


def _json(content: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def main(replicas: int, port: int, waiting: int, settings: list[str]) -> None:
    """Serve until the process is told to end."""
    # of its own: without an address it would join whatever cluster runs on the machine
    ray.init("local", num_cpus=replicas + 1, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(
        num_replicas=replicas,
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=1,
        max_queued_requests=waiting * replicas,
    )
    serve.run(deployment(Stages).bind(settings))
    print(f"http://127.0.0.1:{port} serves by Ray Serve", file=sys.__stderr__, flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:4]]
    main(sizes[0], sizes[1], sizes[2], sys.argv[4:])
