"""Peak memory of writing and preparing a large log: 50 million events in less than 4 GiB.

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

from rich.table import Table

from recsys.core.console import output_console
from recsys.data.contract.manifest import DatasetManifest

DESCRIPTION = "peak memory of simulating and preparing a log of 50 million events, under 4 GiB"

_GIB = 2**30

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
        limit_gib: what no process may exceed.
    """

    simulator: str = "default"
    users: int | None = None
    folder: str | None = None
    limit_gib: float = 4.0


def run(config: Config) -> dict[str, object]:
    """Measure both commands, print a table, and return the figures.

    Raises:
        AssertionError: a command failed, or took more memory than the limit.
    """
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        log, prepared = Path(folder) / "log", Path(folder) / "prepared"
        users = [] if config.users is None else [f"simulator.users={config.users}"]
        figures: dict[str, float] = {}
        commands = {
            "simulate": ["simulate", f"simulator={config.simulator}", *users, f"out={log}"],
            "prepare": ["prepare", "data=simulated", f"path={log}", f"out={prepared}"],
        }
        for name, words in commands.items():
            seconds, peak_bytes = measure([sys.executable, "-m", "recsys", "data", *words])
            figures |= {f"{name}_seconds": seconds, f"{name}_peak_gib": peak_bytes / _GIB}
        counts = DatasetManifest.load(prepared).counts
    figures["events"] = counts["events"]
    figures["request_rows"] = sum(counts[f"rows_{split}"] for split in ("fit", "choose", "report"))
    _print(figures)
    for name in commands:
        peak = figures[f"{name}_peak_gib"]
        if peak > config.limit_gib:
            raise AssertionError(f"{name} took {peak:.2f} GiB, the limit is {config.limit_gib}")
    return {"config": asdict(config), **figures}


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


def _print(figures: dict[str, float]) -> None:
    title = f"{figures['events']:,} events, {figures['request_rows']:,} request rows"
    table = Table("recsys data …", "seconds", "events / s", "peak memory, GiB", title=title)
    for name in ("simulate", "prepare"):
        seconds = figures[f"{name}_seconds"]
        speed = figures["events"] / seconds
        peak = figures[f"{name}_peak_gib"]
        table.add_row(name, f"{seconds:,.0f}", f"{speed:,.0f}", f"{peak:.2f}")
    output_console().print(table)
