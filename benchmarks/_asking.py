"""A service in processes of its own, and a client that asks at moments drawn before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import numpy as np

from recsys.cli.prepare import configure as configure_preparation
from recsys.cli.simulate import configure as configure_simulation
from recsys.data.prepare.prepare import prepare
from recsys.data.simulator.simulate import simulate

PERCENTILES = (50, 75, 99)
#: What is not answered within so long is lost, s.
_PATIENCE = aiohttp.ClientTimeout(total=600)
#: Seconds that a connection waits for the next request; a service closes it after five.
_KEPT = 2.0
#: Of a request that got no answer at all.
LOST = "lost"


@dataclass(frozen=True)
class Asking:
    """How a service is asked.

    Attributes:
        rate: requests per second.
        seconds: so long.
        k: items of a list.
        users: the first so many of those that the service names; None for all of them.
    """

    rate: float
    seconds: float
    k: int = 20
    users: int | None = None


@dataclass
class Answered:
    """What came of it.

    Attributes:
        seconds: that were asked.
        outcomes: how many answers by status, ``lost``, and how many lists were made before.
        latencies: of the lists, s, from the moments at which they were to be asked for.
    """

    seconds: float
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def and_then(self, other: Answered) -> Answered:
        """Both, one after the other."""
        return Answered(
            self.seconds + other.seconds,
            self.outcomes + other.outcomes,
            self.latencies + other.latencies,
        )

    @property
    def figures(self) -> dict[str, float]:
        """Percentiles in ms, lists per second, and the others."""
        other = {status: n for status, n in self.outcomes.items() if status not in _LISTS}
        return percentiles(self.latencies) | {
            "per_second": self.outcomes["200"] / self.seconds,
            "fallbacks": self.outcomes["fallbacks"],
            "refused": other.pop("503", 0),
            "failed": sum(other.values()),
        }


_LISTS = ("200", "fallbacks")


def small_world(folder: Path) -> str:
    """A prepared data set of a small simulated world."""
    simulation = configure_simulation(["simulator=explore_small", f"out={folder}/log"])
    simulate(simulation.simulator, Path(simulation.out))
    prepared = f"{folder}/prepared"
    given = ["data=simulated", f"path={folder}/log", f"out={prepared}"]
    prepare(configure_preparation(given))
    return prepared


@contextmanager
def running(words: Sequence[str], log: Path) -> Iterator[str]:
    """The address of a service that is started as a module of Python, and says it on stderr.

    Raises:
        RuntimeError: it ended before.
    """
    with log.open("w") as written:
        process = subprocess.Popen([sys.executable, "-m", *words], stderr=written)
    try:
        while not (told := _told(log)) and process.poll() is None:
            time.sleep(0.1)
        if not told:
            raise RuntimeError(f"{' '.join(words)} did not start: {log.read_text()[-2_000:]}")
        asyncio.run(_ready(told))
        yield told
    finally:
        process.terminate()
        process.wait()


async def asked(
    address: str,
    how: Asking,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> Answered:
    """Ask at moments of a Poisson process, whether or not others were answered.

    Args:
        address: of the service.
        how: it is asked.
        meanwhile: what else happens, from the first request on.
    """
    rng = np.random.default_rng(round(how.rate))
    moments = np.cumsum(rng.exponential(1 / how.rate, max(int(how.rate * how.seconds), 1)))
    found = Answered(float(moments[-1]))
    # a connection is given up before the service does, which would look like a request that is lost
    connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT)
    async with aiohttp.ClientSession(address, connector=connections, timeout=_PATIENCE) as session:
        async with session.get("/users") as response:
            users = (await response.json())["users"][: how.users]

        async def ask(user: int, due: float) -> None:
            await asyncio.sleep(due - time.perf_counter())
            body = msgspec.json.encode({"user": user, "k": how.k})
            try:
                async with session.post("/recommend", data=body) as response:
                    content = await response.read()
                    found.outcomes[str(response.status)] += 1
            except (aiohttp.ClientError, TimeoutError):
                found.outcomes[LOST] += 1
                return
            if response.status == 200:
                found.latencies.append(time.perf_counter() - due)
                found.outcomes["fallbacks"] += b'"fallback":null' not in content

        began = time.perf_counter()
        chosen = rng.choice(len(users), len(moments))
        requests = [ask(users[one], began + due) for one, due in zip(chosen, moments, strict=True)]
        await asyncio.gather(*requests, *([] if meanwhile is None else [meanwhile()]))
    return found


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """In ms, of seconds."""
    found = np.percentile(latencies or [np.nan], PERCENTILES)
    return {f"p{p}_ms": 1_000 * value for p, value in zip(PERCENTILES, found, strict=True)}


def milliseconds(found: dict[str, float]) -> list[str]:
    """The percentiles, to be shown."""
    return [f"{found[f'p{p}_ms']:,.1f}" for p in PERCENTILES]


def _told(log: Path) -> str:
    """The address, once it stands at the beginning of a line."""
    lines = [line.split() for line in log.read_text().splitlines()]
    return next((line[0] for line in lines if line and line[0].startswith("http://")), "")


async def _ready(address: str) -> None:
    # the socket listens before workers do, so this waits for them
    async with (
        aiohttp.ClientSession(address, timeout=_PATIENCE) as session,
        session.get("/ready") as response,
    ):
        response.raise_for_status()
