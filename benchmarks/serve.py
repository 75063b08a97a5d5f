"""Lists per second of `recsys serve` on this machine, and what HTTP, ledger and metrics cost.

The service runs in processes of its own over a small simulated world, or a data set that is given,
and is asked by an asyncio client on loopback, which shares the machine with it. Requests are sent
at moments that are drawn before (a Poisson process), whether or not others were answered: so the
percentiles are those of who comes, and not of who was let in. The same requests are run through the
stages alone, one after another in this process.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import msgspec
import numpy as np

from recsys.cli.prepare import configure as configure_preparation
from recsys.cli.serve import configure as configure_service
from recsys.cli.simulate import configure as configure_simulation
from recsys.core.console import output_console, text_table
from recsys.data.prepare.prepare import prepare
from recsys.data.simulator.simulate import simulate
from recsys.service.generations import ServiceState
from recsys.service.messages import Recommend
from recsys.service.served import Served

DESCRIPTION = "lists per second over HTTP and their latency, beside the stages alone"

_PERCENTILES = (50, 75, 99)
#: Seconds between requests of the stages alone, as of a service that is asked now and then: what a
#: processor had at hand for the last one is gone by then.
_PAUSE = 0.05


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        dataset: a prepared data set; None for a small simulated world.
        funnel: of conf/funnel, or a file.
        workers: processes of the service.
        rates: requests per second, one after another.
        seconds: of each rate.
        k: items of a list.
        alone: requests of the stages alone.
    """

    dataset: str | None = None
    funnel: str = "explore"
    workers: int = 2
    rates: tuple[int, ...] = (25, 50, 100, 200)
    seconds: float = 5.0
    k: int = 20
    alone: int = 200


def run(config: Config) -> dict[str, object]:
    """Measure the stages alone, then each rate; print a table, and return the figures."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = config.dataset or _small_world(Path(folder))
        settings = [
            f"funnel={config.funnel}",
            f"dataset={dataset}",
            f"state={folder}/state",
            *("port=0", "clock=log", f"workers={config.workers}"),
        ]
        with _service(settings, Path(folder) / "told") as address:
            asyncio.run(_asked(address, config, 50, 1.0))  # warm
            asked = [asyncio.run(_asked(address, config, rate)) for rate in config.rates]
        alone, paced = (_alone(config, settings, pause) for pause in (0.0, _PAUSE))
    rows = [["", "answered /s", "fallbacks", "503", *(f"p{p} ms" for p in _PERCENTILES)]]
    rows.append(["stages alone", f"{alone['per_second']:,.0f}", "", "", *_milliseconds(alone)])
    rows.append([f"stages alone, {1_000 * _PAUSE:.0f} ms apart", "", "", "", *_milliseconds(paced)])
    for rate, found in zip(config.rates, asked, strict=True):
        counts = [f"{found[name]:,.0f}" for name in ("per_second", "fallbacks", "refused")]
        rows.append([f"{rate}/s asked", *counts, *_milliseconds(found)])
    output_console().print(text_table(f"{config.funnel}, {config.workers} workers", rows))
    return {"config": asdict(config), "alone": alone, "paced": paced, "asked": asked}


def _small_world(folder: Path) -> str:
    small = ["simulator=explore_small", f"out={folder}/log"]
    simulation = configure_simulation(small)
    simulate(simulation.simulator, Path(simulation.out))
    prepared = f"{folder}/prepared"
    given = ["data=simulated", f"path={folder}/log", f"out={prepared}"]
    prepare(configure_preparation(given))
    return prepared


@contextmanager
def _service(settings: list[str], log: Path) -> Iterator[str]:
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "recsys", "serve", *settings], stderr=written
        )
    try:
        while "\n" not in log.read_text() and process.poll() is None:
            time.sleep(0.1)
        address = log.read_text().split()[0]
        asyncio.run(_ready(address))
        yield address
    finally:
        process.terminate()
        process.wait()


async def _ready(address: str) -> None:
    # the socket listens before workers do, so this waits for them
    async with aiohttp.ClientSession(address) as session, session.get("/ready") as response:
        response.raise_for_status()


async def _asked(
    address: str, config: Config, rate: int, seconds: float | None = None
) -> dict[str, float]:
    """What comes of so many requests per second."""
    rng = np.random.default_rng(rate)
    moments = np.cumsum(rng.exponential(1 / rate, int(rate * (seconds or config.seconds))))
    outcomes: Counter[str] = Counter()
    latencies: list[float] = []
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, connector=connections) as session:
        async with session.get("/users") as response:
            users = (await response.json())["users"]

        async def ask(user: int, due: float) -> None:
            await asyncio.sleep(due - time.perf_counter())
            body = msgspec.json.encode({"user": user, "k": config.k})
            async with session.post("/recommend", data=body) as response:
                content = await response.read()
                outcomes[str(response.status)] += 1
                if response.status == 200:
                    latencies.append(time.perf_counter() - due)
                    outcomes["fallbacks"] += b'"fallback":null' not in content

        began = time.perf_counter()
        chosen = rng.choice(len(users), len(moments))
        await asyncio.gather(
            *(ask(users[one], began + due) for one, due in zip(chosen, moments, strict=True))
        )
    found = _percentiles(latencies) | {"per_second": outcomes["200"] / float(moments[-1])}
    other = {status: n for status, n in outcomes.items() if status not in ("200", "fallbacks")}
    assert set(other) <= {"503"}, other
    return found | {"fallbacks": outcomes["fallbacks"], "refused": outcomes["503"]}


def _alone(config: Config, settings: list[str], pause: float) -> dict[str, float]:
    """The stages, one request after another, so many seconds after its end."""
    service = configure_service(settings)
    state = ServiceState(Path(service.state))
    served = Served.open(state.current(), service, state)
    served.refresh()
    users = served.some_users()
    chosen = np.random.default_rng(0).choice(len(users), config.alone)
    latencies = []
    for number, one in enumerate(chosen):
        began = time.perf_counter()
        served.answer(number, Recommend(users[one] or 0, config.k))
        latencies.append(time.perf_counter() - began)
        time.sleep(pause)
    served.dataset.live.close()
    return _percentiles(latencies) | {"per_second": len(latencies) / sum(latencies)}


def _percentiles(latencies: list[float]) -> dict[str, float]:
    found = np.percentile(latencies or [np.nan], _PERCENTILES)
    return {f"p{p}_ms": 1_000 * value for p, value in zip(_PERCENTILES, found, strict=True)}


def _milliseconds(found: dict[str, float]) -> list[str]:
    return [f"{found[f'p{p}_ms']:,.1f}" for p in _PERCENTILES]
