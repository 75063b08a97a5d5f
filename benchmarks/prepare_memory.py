"""Peak memory of writing and preparing a large log: 50 million events in less than 4 GiB.

Two logs: what the simulator writes, and one of a shop's own, with text ids, ISO times and actions
by its own names, which is described and prepared twice, without and with its tables of items
(title, description, category, brand, price) and users (country, age).

Each command runs in a process of its own; its peak is the largest resident set the kernel saw
(``ru_maxrss``), pages of mapped files included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.table import Table

from recsys.core.console import output_console
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.parquet import write_frame

DESCRIPTION = "peak memory of simulating, describing and preparing 50 million events, under 4 GiB"

_GIB = 2**30
_ROWS_PER_FILE = 2_000_000
_LOG_DAYS = 30
#: 2024-02-01 00:00 UTC, in seconds.
_START = 1_706_745_600
_WORDS = ("lamp", "wool", "steel", "chair", "green", "small", "garden", "oak", "table", "light")

#: Starts a command and prints its peak in KiB. A process of its own, because ``ru_maxrss`` begins
#: with the memory of the process that starts the command, and this one holds torch.
_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        simulator: file of conf/simulator; ``default`` writes 50 million events.
        users: users of the log; None for those of that file.
        folder: where log and data set are written and removed again, several GB; None for the
            system's folder of temporary files.
        own_events: events of the shop's log; 0 to leave it out.
        own_items: items of the shop.
        own_users: its users.
        limit_gib: what no process may exceed.
    """

    simulator: str = "default"
    users: int | None = None
    own_events: int = 50_000_000
    own_items: int = 1_000_000
    own_users: int = 500_000
    folder: str | None = None
    limit_gib: float = 4.0


def run(config: Config) -> dict[str, object]:
    """Measure all commands, print a table, and return the figures.

    Raises:
        AssertionError: a command failed, or took more memory than the limit.
    """
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        steps = {**_simulated(config, Path(folder)), **_own(config, Path(folder))}
    _print(steps)
    for name, step in steps.items():
        if step["peak_gib"] > config.limit_gib:
            raise AssertionError(
                f"{name} took {step['peak_gib']:.2f} GiB, the limit is {config.limit_gib}"
            )
    return {"config": asdict(config), "steps": steps}


def _simulated(config: Config, folder: Path) -> dict[str, dict[str, float]]:
    """The simulator's log, written and prepared."""
    log, prepared = folder / "log", folder / "prepared"
    users = [] if config.users is None else [f"simulator.users={config.users}"]
    commands = {
        "simulate": ["simulate", f"simulator={config.simulator}", *users, f"out={log}"],
        "prepare simulated": ["prepare", "data=simulated", f"path={log}", f"out={prepared}"],
    }
    return _measured(commands, prepared)


def _own(config: Config, folder: Path) -> dict[str, dict[str, float]]:
    """The shop's log, described and prepared without and with what it knows of items and users."""
    if not config.own_events:
        return {}
    shop = folder / "shop"
    _write_shop(config, shop)
    tables = [f"items={shop}/items.parquet", f"users={shop}/users.parquet"]
    steps: dict[str, dict[str, float]] = {}
    for name, given in {"own log": [], "own log, items, users": tables}.items():
        described, prepared = folder / f"{len(given)}.yaml", folder / f"own_{len(given)}"
        commands = {
            f"infer {name}": ["infer", f"path={shop}/events", *given, f"out={described}"],
            f"prepare {name}": ["prepare", str(described), f"out={prepared}"],
        }
        steps |= _measured(commands, prepared)
    return steps


def _write_shop(config: Config, folder: Path) -> None:
    generator = np.random.default_rng(0)
    (folder / "events").mkdir(parents=True)
    files = -(-config.own_events // _ROWS_PER_FILE)
    for number in range(files):
        rows = min(_ROWS_PER_FILE, config.own_events - number * _ROWS_PER_FILE)
        of_time = (number / files, (number + 1) / files)
        events = _shop_events(config, generator, rows, of_time)
        write_frame(folder / "events" / f"{number:04d}.parquet", events)
    write_frame(folder / "items.parquet", _shop_items(config, generator))
    user = pl.int_range(config.own_users, eager=True)
    country = pl.Series(generator.choice(["DE", "FR", "NO", "PL"], config.own_users))
    users = pl.DataFrame({"customer": _named("u", user), "age": user % 60 + 15, "country": country})
    write_frame(folder / "users.parquet", users)


def _shop_events(
    config: Config, generator: np.random.Generator, rows: int, of_time: tuple[float, float]
) -> pl.DataFrame:
    """Popular items oftener than others; times of the given part of the log, in order."""
    first, last = (_START + int(part * _LOG_DAYS * 86_400) for part in of_time)
    second = pl.Series(np.sort(generator.integers(first, last, rows)))
    item = (config.own_items * generator.random(rows) ** 3).astype(np.int64)
    action = generator.choice(["view", "view", "view", "cart", "purchase"], rows)
    return pl.DataFrame(
        {
            "customer": _named("u", pl.Series(generator.integers(0, config.own_users, rows))),
            "product": _named("p", pl.Series(item)),
            "event_time": pl.from_epoch(second, "s").dt.strftime("%Y-%m-%dT%H:%M:%S"),
            "event_type": action,
        }
    )


def _shop_items(config: Config, generator: np.random.Generator) -> pl.DataFrame:
    number = pl.int_range(config.own_items, eager=True)
    words = generator.choice(_WORDS, (config.own_items, 12))
    return pl.DataFrame(
        {
            "product": _named("p", number),
            "title": pl.Series(words[:, :4].tolist()).list.join(" "),
            "description": pl.Series(words.tolist()).list.join(" "),
            "category": _named("category-", number % 40),
            "brand": _named("brand-", number % 5_000),
            "price": generator.random(config.own_items) * 100,
        }
    )


def _named(prefix: str, number: pl.Series) -> pl.Series:
    return prefix + number.cast(pl.String)


def _measured(commands: dict[str, list[str]], prepared: Path) -> dict[str, dict[str, float]]:
    """Of every command seconds, peak, and the events and request rows that the last prepared."""
    steps = {}
    for name, words in commands.items():
        seconds, peak_bytes = measure([sys.executable, "-m", "recsys", "data", *words])
        steps[name] = {"seconds": seconds, "peak_gib": peak_bytes / _GIB}
    counts = DatasetManifest.load(prepared).counts
    rows = sum(counts[f"rows_{split}"] for split in ("fit", "choose", "report"))
    return {
        name: {**step, "events": counts["events"], "request_rows": rows}
        for name, step in steps.items()
    }


def measure(command: list[str]) -> tuple[float, int]:
    """Seconds a command takes and the bytes its process held at most.

    Raises:
        AssertionError: it failed.
    """
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", _WATCH, *command], stdout=subprocess.PIPE, text=True
    )
    if finished.returncode != 0:
        raise AssertionError(f"{' '.join(command[1:])} failed with {finished.returncode}")
    return time.perf_counter() - start, int(finished.stdout) * 1024


def _print(steps: dict[str, dict[str, float]]) -> None:
    columns = ("events", "request rows", "seconds", "events / s", "peak memory, GiB")
    table = Table("recsys data …", *columns)
    for name, step in steps.items():
        speed = step["events"] / step["seconds"]
        counts = [f"{step[count]:,.0f}" for count in ("events", "request_rows", "seconds")]
        table.add_row(name, *counts, f"{speed:,.0f}", f"{step['peak_gib']:.2f}")
    output_console().print(table)
