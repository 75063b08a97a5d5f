"""A small simulated world as a data set that a service can be started on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil

from recsys.cli.main import invoke

_SIMULATION = (
    "simulator=explore_small",
    "simulator.users=80",
    "simulator.activity.scale=0.05",
    "simulator.catalogue.items=2000",
    "simulator.catalogue.authors=120",
)


def prepare(folder: Path, *settings: str) -> Path:
    """The data set of a new log in a folder."""
    assert invoke(["data", "simulate", *_SIMULATION, *settings, f"out={folder / 'log'}"]) == 0
    prepared = folder / "prepared"
    asked = ["data=simulated", f"path={folder / 'log'}", f"out={prepared}"]
    assert invoke(["data", "prepare", *asked]) == 0
    return prepared


def events_of(prepared: Path) -> pl.DataFrame:
    """The log that was prepared, a row per event."""
    return pl.read_parquet(prepared.parent / "log" / "log" / "*.parquet")


class Running:
    """A service in processes of its own.

    Args:
        prepared: the data set.
        state: its folder.
        settings: of `recsys serve`, beside the funnel, the data set and the clock.
        environment: variables of the processes, beside this one's.
    """

    def __init__(
        self, prepared: Path, state: Path, *settings: str, environment: dict[str, str] | None = None
    ) -> None:
        given = ["funnel=explore", f"dataset={prepared}", f"state={state}", "clock=log", "port=0"]
        log = state.with_suffix(".log")
        with log.open("w") as written:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recsys", "serve", *given, "ledger_seconds=0.5", *settings],
                stderr=written,
                start_new_session=True,
                env=os.environ | (environment or {}),
            )
        self.state, self.client = state, httpx.Client()
        self.until(lambda: "\n" in log.read_text())
        assert log.read_text().startswith("http"), log.read_text()
        self.client = httpx.Client(base_url=log.read_text().split()[0], timeout=20)
        self.until(lambda: self.client.get("/ready").status_code == 200)

    def recommend(self, user: int | str, **settings: Any) -> dict[str, Any]:
        """A list, of any worker: by a connection of its own."""
        alone = {"Connection": "close"}
        response = self.client.post("/recommend", json={"user": user, **settings}, headers=alone)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def report(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Events, and what became of them."""
        response = self.client.post("/events", json=list(events))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def workers(self) -> list[int]:
        """Processes that answer."""
        found = []
        for one in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it has just ended
                if "spawn_main" in " ".join(one.cmdline()):
                    found.append(one.pid)
        return found

    def until_all_serve(self, generation: int) -> None:
        """Wait until every worker has taken up a generation."""

        def all_serve() -> bool:
            lines = self.client.get("/metrics").text.splitlines()
            found = [float(one.split()[1]) for one in lines if one.startswith("recsys_generation{")]
            return found == [generation] * len(self.workers())

        self.until(all_serve)
        assert self.recommend(1)["generation"] == generation

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.TransportError):
                if holds():
                    return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        """End all processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._ended()

    def stop(self) -> None:
        """Tell the service to end."""
        self.process.terminate()
        self._ended()

    def _ended(self) -> None:
        self.client.close()
        self.process.wait(30)
