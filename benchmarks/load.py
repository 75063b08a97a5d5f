"""The service under load, with and without a cache, beside the same stages in Ray Serve.

Of each the highest rate whose p99 stays within a bound; then, of the service with the cache, what a
user takes of FeedState, what ten times as many requests do to it for a minute and how it is
afterwards, and what a swap of generations does to those who ask meanwhile. All in one run, on one
machine, which the client shares: the ratios are what it is for.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import lmdb

from benchmarks._asking import Asking, asked, milliseconds, running, small_world
from recsys.cli.serve import configure as configure_service
from recsys.core.console import output_console, text_table
from recsys.service.release import swap

DESCRIPTION = "requests per second of the service with a cache and without, overload and swaps"

_PLAIN, _CACHED, _RAY = "no cache", "cache", "Ray Serve"


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        dataset: a prepared data set; None for a small simulated world.
        funnel: of conf/funnel, or a file.
        cache: settings with which there is a cache.
        workers: processes of the service; replicas of Ray Serve.
        users: who ask, again and again.
        p99_ms: the bound.
        rates: requests per second, tried one after another until the bound is broken.
        seconds: of each rate.
        overload: times the highest rate.
        overload_seconds: so long.
        ray: whether Ray Serve is measured too, where it is installed.
    """

    dataset: str | None = None
    funnel: str = "explore"
    cache: list[str] = field(
        default_factory=lambda: ["funnel.cache.policy=decay", "funnel.cache.max_age_hours=6"]
    )
    workers: int = 2
    users: int = 200
    p99_ms: float = 100.0
    rates: list[float] = field(default_factory=lambda: [5, 10, 20, 40, 80, 120, 160, 240, 320])
    seconds: float = 10.0
    overload: float = 10.0
    overload_seconds: float = 60.0
    ray: bool = True


def run(config: Config) -> dict[str, object]:
    """Measure all; print tables, and return the figures."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = config.dataset or small_world(folder)
        plain, cached = (
            _settings(config, dataset, folder / name, more)
            for name, more in (("plain", []), ("cached", config.cache))
        )
        tried: dict[str, list[dict[str, float]]] = {}
        with running(["recsys", "serve", *plain], folder / "plain.log") as address:
            tried[_PLAIN] = _climbed(address, config)
        with running(["recsys", "serve", *cached], folder / "cached.log") as address:
            tried[_CACHED] = _climbed(address, config)
            most = _most(config, tried[_CACHED])
            calm = _figures(address, config, most / 2)
            change = _swapped(address, config, most / 2, cached)
            flood = _figures(address, config, most * config.overload, config.overload_seconds)
            after = _figures(address, config, most / 2)
        per_user = _bytes_per_user(folder / "cached")
        why = _ray_serve(config, plain, folder, tried)
    beside = {"calm": calm, "swap": change, "overload": flood, "afterwards": after}
    _print(config, tried, beside, per_user, why)
    return {"config": asdict(config), "rates": tried, "beside": beside, "bytes_per_user": per_user}


def _settings(config: Config, dataset: str, state: Path, more: Sequence[str]) -> list[str]:
    return [
        *(f"state={state}", f"funnel={config.funnel}", *more, f"dataset={dataset}"),
        *("port=0", "clock=log", f"workers={config.workers}"),
    ]


def _ray_serve(
    config: Config,
    settings: Sequence[str],
    folder: Path,
    tried: dict[str, list[dict[str, float]]],
) -> str:
    """Measure the same stages in Ray Serve; why they were not, if so."""
    if not config.ray:
        return "not asked for"
    if importlib.util.find_spec("grpc_reflection") is None:
        return "pip install 'ray[serve]'"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = (str(config.workers), str(port), "32", *settings)
    try:
        with running(["benchmarks._ray_serve_side", *words], folder / "ray.log") as address:
            tried[_RAY] = _climbed(address, config)
    except RuntimeError as error:  # Ray gives a busy machine half a minute
        return str(error).splitlines()[-1]
    return ""


def _climbed(address: str, config: Config) -> list[dict[str, float]]:
    """What comes of the rates, up to the first that breaks the bound."""
    asyncio.run(asked(address, Asking(config.rates[0], config.seconds, users=config.users)))  # warm
    found = []
    for rate in config.rates:
        found.append({"rate": rate, **_figures(address, config, rate)})
        if not _holds(config, found[-1]):
            break
    return found


def _holds(config: Config, found: dict[str, float]) -> bool:
    others = found["fallbacks"] + found["refused"] + found["failed"]
    return found["p99_ms"] <= config.p99_ms and not others


def _most(config: Config, tried: Sequence[dict[str, float]]) -> float:
    """The highest rate that holds; the first one, where none does."""
    return max((one["rate"] for one in tried if _holds(config, one)), default=tried[0]["rate"])


def _figures(
    address: str, config: Config, rate: float, seconds: float | None = None
) -> dict[str, float]:
    """Of one rate."""
    how = Asking(rate, seconds or config.seconds, users=config.users)
    return asyncio.run(asked(address, how)).figures


def _swapped(
    address: str, config: Config, rate: float, settings: Sequence[str]
) -> dict[str, float]:
    """Of one rate from before another generation is brought until it is served."""
    service = configure_service([*settings, "funnel.seed=1"])
    former = asyncio.run(_generation(address))

    async def bring() -> None:
        await asyncio.to_thread(swap, service)

    how = Asking(rate, config.seconds, users=config.users)
    found = asyncio.run(asked(address, how, bring))
    while asyncio.run(_generation(address)) == former:
        found = found.and_then(asyncio.run(asked(address, how)))
    return found.figures


async def _generation(address: str) -> int:
    async with aiohttp.ClientSession(address) as session, session.get("/health") as response:
        number: int = (await response.json())["generation"]
    return number


def _bytes_per_user(state: Path) -> float:
    """Of a FeedState, by the pages of its users."""
    pages = users = 0
    for folder in sorted((state / "feed").iterdir()):
        with lmdb.open(str(folder), max_dbs=2, readonly=True) as environment:
            kept = environment.open_db(b"feed_users", create=False)
            with environment.begin() as transaction:
                stat = transaction.stat(kept)
        pages += stat["psize"] * (
            stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        )
        users += stat["entries"]
    return pages / max(users, 1)


def _print(
    config: Config,
    tried: dict[str, list[dict[str, float]]],
    beside: dict[str, dict[str, float]],
    per_user: float,
    why: str,
) -> None:
    console = output_console()
    base = _most(config, tried[_PLAIN])
    rows = [["", f"highest rate at p99 <= {config.p99_ms:g} ms", "of no cache", "p50 there"]]
    for name, found in tried.items():
        most = _most(config, found)
        mark = "" if any(_holds(config, one) for one in found) else " (the bound is broken)"
        p50 = next(one["p50_ms"] for one in found if one["rate"] == most)
        rows.append([name, f"{most:g}{mark}", f"{most / base:.2f}", f"{p50:,.1f}"])
    if _RAY not in tried:
        rows.append([_RAY, f"not measured: {why}", "", ""])
    console.print(text_table(f"{config.funnel}, {config.workers} processes", rows))
    calm = beside["calm"]["p99_ms"]
    rows = [["cache", "lists /s", "fallbacks", "503", "failed", "p50", "p75", "p99", "p99 / calm"]]
    for name, one in beside.items():
        counts = [f"{one[key]:,.0f}" for key in ("per_second", "fallbacks", "refused", "failed")]
        rows.append([name, *counts, *milliseconds(one), f"{one['p99_ms'] / calm:.2f}"])
    console.print(text_table("half the highest rate, and beside it", rows))
    console.print(f"FeedState: {per_user:,.0f} bytes a user")
