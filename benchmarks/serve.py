"""Lists per second of `recsys serve` on this machine, and what HTTP, ledger and metrics cost.

The service runs in processes of its own over a small simulated world, or a data set that is given,
and is asked by an asyncio client on loopback, which shares the machine with it. Requests are sent
at moments that are drawn before (a Poisson process), whether or not others were answered: so the
percentiles are those of who comes, and not of who was let in. The same requests are run through the
stages alone, one after another in this process.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks._asking import (
    PERCENTILES,
    Asking,
    asked,
    milliseconds,
    percentiles,
    running,
    small_world,
)
from recsys.cli.serve import configure as configure_service
from recsys.core.console import output_console, text_table
from recsys.service.generations import ServiceState
from recsys.service.messages import Recommend
from recsys.service.served import Served

DESCRIPTION = "lists per second over HTTP and their latency, beside the stages alone"

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
        dataset = config.dataset or small_world(Path(folder))
        settings = [
            f"funnel={config.funnel}",
            f"dataset={dataset}",
            f"state={folder}/state",
            *("port=0", "clock=log", f"workers={config.workers}"),
        ]
        with running(["recsys", "serve", *settings], Path(folder) / "told") as address:
            asyncio.run(asked(address, Asking(50, 1.0, config.k)))  # warm
            answered = [_answered(address, config, rate) for rate in config.rates]
        alone, paced = (_alone(config, settings, pause) for pause in (0.0, _PAUSE))
    rows = [["", "answered /s", "fallbacks", "503", *(f"p{p} ms" for p in PERCENTILES)]]
    rows.append(["stages alone", f"{alone['per_second']:,.0f}", "", "", *milliseconds(alone)])
    rows.append([f"stages alone, {1_000 * _PAUSE:.0f} ms apart", "", "", "", *milliseconds(paced)])
    for rate, found in zip(config.rates, answered, strict=True):
        counts = [f"{found[name]:,.0f}" for name in ("per_second", "fallbacks", "refused")]
        rows.append([f"{rate}/s asked", *counts, *milliseconds(found)])
    output_console().print(text_table(f"{config.funnel}, {config.workers} workers", rows))
    return {"config": asdict(config), "alone": alone, "paced": paced, "asked": answered}


def _answered(address: str, config: Config, rate: int) -> dict[str, float]:
    """What comes of so many requests per second; nothing but lists and 503."""
    found = asyncio.run(asked(address, Asking(rate, config.seconds, config.k))).figures
    assert not found.pop("failed")
    return found


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
    return percentiles(latencies) | {"per_second": len(latencies) / sum(latencies)}
